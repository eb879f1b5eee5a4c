"""A flood of one reason is told in part, and how much was not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.observe.rate_limit import LINES_PER_SECOND, Flood

START = datetime(2030, 1, 1, tzinfo=UTC)


def test_each_reason_has_its_own_bound() -> None:
    flood = Flood()
    told = [flood.hidden("a", START) for _ in range(LINES_PER_SECOND + 3)]
    assert told == [0] * LINES_PER_SECOND + [None] * 3
    assert flood.hidden("b", START) == 0
    assert flood.hidden("a", START + timedelta(seconds=1)) == 3
    assert flood.hidden("a", START + timedelta(seconds=1)) == 0
