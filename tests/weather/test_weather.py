"""Every weather at a small rate: no call fails, the agents are asked little, and news come after it.

`python -m tests.weather` plays them at 200 calls a second, for as long as is wanted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.contract.federation import Kind, consul_binary
from tests.weather.mesh import Stormy, stormy
from tests.weather.story import Told, most_requests, played, restarted
from tests.weather.weathers import STORMS

figures = logging.getLogger("weather.figures")

SECONDS, PER_SECOND = 2.0, 10.0

NEEDS_CONSUL = pytest.mark.skipif(consul_binary() is None, reason="no consul binary")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # several storms a test, on any machine


def survived(told: Told) -> None:
    figures.info("%s", told.row)
    assert told.load.faults == [], (told.storm, told.endings)
    assert told.load.answered, told.storm
    assert told.requests <= most_requests(told.watches, told.seconds), told.storm


def tunnelled(whole: Stormy) -> bool:
    """Return whether web has opened a tunnel, as it does for a call alone; it may have been retired since."""
    return " tunnel.opened: " in whole.web.log.read_text()


@pytest.mark.parametrize("tunnels", [False, True], ids=["", "in tunnels"])
@pytest.mark.parametrize("kind", STORMS)
async def test_calls_go_on_through_storms_and_what_changed_meanwhile_is_seen(
    kind: str, tunnels: bool, tmp_path: Path
) -> None:
    async with stormy(tmp_path, tunnels=tunnels) as whole:
        for storm in STORMS[kind]:
            survived(await played(whole, storm, seconds=SECONDS, per_second=PER_SECOND))

        assert tunnelled(whole) is tunnels
        assert all("clock.skewed" not in sidecar.log.read_text() for sidecar in (whole.web, whole.db))


KINDS: list[Any] = ["embedded", pytest.param("consul", marks=[pytest.mark.consul, NEEDS_CONSUL])]


@pytest.mark.parametrize("tunnels", [False, True], ids=["", "in tunnels"])
@pytest.mark.parametrize("kind", KINDS)
async def test_calls_go_on_while_agents_and_servers_are_restarted(
    kind: Kind, tunnels: bool, tmp_path: Path
) -> None:
    async with stormy(tmp_path, kind, tunnels=tunnels) as whole:
        for restart in whole.restarts:
            survived(await restarted(whole, restart, seconds=SECONDS, per_second=PER_SECOND))
        assert tunnelled(whole) is tunnels
