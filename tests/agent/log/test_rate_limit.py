"""A flood of one reason is told in part, and how much was not."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agent.log.rate_limit import LINES_PER_SECOND, RateLimit


async def test_each_reason_has_its_own_bound(autojump_clock: MockClock) -> None:
    flood = RateLimit()
    told = [flood.hidden("a") for _ in range(LINES_PER_SECOND + 3)]
    assert told == [0] * LINES_PER_SECOND + [None] * 3
    assert flood.hidden("b") == 0
    await trio.sleep(1)
    assert flood.hidden("a") == 3
    assert flood.hidden("a") == 0
