"""Every weather at a small rate: no call fails, the agents are asked little, and news come after it.

`python -m tests.weather` plays them at 200 calls a second, for as long as is wanted.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.weather.mesh import stormy
from tests.weather.story import Told, most_requests, played, restarted
from tests.weather.weathers import STORMS

figures = logging.getLogger("weather.figures")

SECONDS, PER_SECOND = 2.0, 10.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several storms a test, on any machine


def survived(told: Told) -> None:
    figures.info("%s", told.row)
    assert told.load.faults == [], (told.storm, told.endings)
    assert told.load.answered, told.storm
    assert told.requests <= most_requests(told.watches, told.seconds), told.storm


@pytest.mark.parametrize("kind", STORMS)
async def test_calls_go_on_through_storms_and_what_changed_meanwhile_is_seen(
    kind: str, tmp_path: Path
) -> None:
    async with stormy(tmp_path) as whole:
        for storm in STORMS[kind]:
            survived(await played(whole, storm, seconds=SECONDS, per_second=PER_SECOND))


async def test_calls_go_on_while_the_agent_is_restarted(tmp_path: Path) -> None:
    async with stormy(tmp_path) as whole:
        survived(await restarted(whole, seconds=1.0, per_second=PER_SECOND))
