"""Lines of one kind are written in part, and how many were not is said, though no more of them come."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agent.log.repeats import LINES, MOST_KINDS, WINDOW, Repeats


async def test_each_kind_has_its_own_bound(autojump_clock: MockClock) -> None:
    repeats: Repeats[int] = Repeats()
    told = [repeats.hidden("a", number) for number in range(LINES + 3)]
    assert told == [0] * LINES + [None] * 3
    assert repeats.is_full("a")
    assert not repeats.is_full("b")
    assert repeats.hidden("b", 0) == 0
    await trio.sleep(WINDOW)
    assert repeats.hidden("a", 0) == 3
    assert repeats.hidden("a", 0) == 0


async def test_the_last_that_was_left_out_is_said_with_the_number_of_the_others() -> None:
    repeats: Repeats[int] = Repeats()
    for number in range(LINES + 3):
        repeats.hidden("a", number)
    assert list(repeats.sums()) == [(LINES + 2, 2)]
    assert list(repeats.sums()) == []


async def test_kinds_without_end_share_one_bound(autojump_clock: MockClock) -> None:
    repeats: Repeats[int] = Repeats()
    told = [repeats.hidden(number, number) for number in range(3 * MOST_KINDS)]
    assert told.count(0) == MOST_KINDS + LINES
    await trio.sleep(WINDOW)
    list(repeats.sums())
    assert repeats.hidden("new", 0) == 0, "kinds of before are forgotten"


def test_nothing_is_left_out_before_the_loop_runs() -> None:
    repeats: Repeats[int] = Repeats()
    assert [repeats.hidden("a", 0) for _ in range(2 * LINES)] == [0] * (2 * LINES)
