"""What the log says of warm connections, at which level, and how often."""

from __future__ import annotations

import io

import pytest
import trio
from trio.testing import MockClock

from agent.config.options import LogLevel
from agent.connections.records import CloseReason, FailedAttempt
from agent.log.events import Journal
from agent.log.log import LogOptions
from agent.log.repeats import WINDOW
from agent.net.dial import DialReason
from agent.outbound.warm_connection import WarmReason
from tests.support.warm_upstream import DB, ONE
from tests.upstreams.test_choose import Clock
from upstreams.route import Candidate

WAY = Candidate(target=0, endpoint=ONE, hop=ONE)


def log(level: LogLevel) -> tuple[Journal, io.StringIO]:
    stream = io.StringIO()
    return Journal(stream, Clock(), LogOptions(level=level)), stream


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (WarmReason.IDLE, False),
        (WarmReason.NEW_CREDENTIALS, False),
        (WarmReason.GONE, False),
        (WarmReason.REFUSED, True),
        (WarmReason.CLOSED, True),
        (WarmReason.EJECTED, True),
        (CloseReason.DENY_LISTED, True),
    ],
)
@pytest.mark.parametrize("level", [LogLevel.DEBUG, LogLevel.INFO])
async def test_the_way_of_things_is_for_debugging(reason: WarmReason, told: bool, level: LogLevel) -> None:
    written, stream = log(level)
    written.warm_discarded(DB, WAY, reason.value, "why")
    line = stream.getvalue()
    assert bool(line) is (told or level is LogLevel.DEBUG)
    if line:
        assert "upstream.warm_discarded" in line
        assert f'upstream=db endpoint="one on n1 in dc1" reason={reason.value} detail=why' in line


async def test_a_failure_says_where() -> None:
    written, stream = log(LogLevel.INFO)
    attempt = FailedAttempt(endpoint="one", address="10.0.0.1:1", reason=DialReason.REFUSED, detail="no")
    written.warm_failed(DB, attempt)
    fields = "upstream=db endpoint=one reason=connect_refused address=10.0.0.1:1 detail=no"
    assert fields in stream.getvalue()


async def test_a_flood_is_told_in_part(autojump_clock: MockClock) -> None:
    written, stream = log(LogLevel.INFO)
    for _ in range(100):
        written.warm_discarded(DB, WAY, WarmReason.REFUSED.value, "no")
    assert len(stream.getvalue().splitlines()) == 10
    await trio.sleep(WINDOW)
    written.warm_discarded(DB, WAY, WarmReason.REFUSED.value, "no")
    assert "hidden=90" in stream.getvalue()
