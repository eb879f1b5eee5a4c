"""Each list is asked for within the seconds that are stated, however many there are and how busy it is."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from agent.consul.budget import LONGEST, Budget, Rank, Urgency
from tests.agent.consul.test_budget import OWN, Story


@pytest.mark.parametrize("lists", [1, 8, 150, 400])
async def test_each_list_is_asked_for_within_the_seconds_that_are_stated(
    nursery: trio.Nursery, autojump_clock: MockClock, lists: int
) -> None:
    story = Story(nursery, Budget(3))
    story.agent.takes = 0.002
    for name, rank in OWN:
        story.start(name, rank)
    for number in range(lists):
        story.start(f"list {number}", Rank.ENDPOINTS)
    await trio.sleep(20)
    bound = story.budget.turn_seconds
    assert bound <= max(10.0, (lists + 2) / 16) + 1e-6
    await trio.sleep(3 * bound)
    end = trio.current_time()
    for number in range(lists):
        recent = [at for at in story.agent.times(f"list {number}") if at > end - 3 * bound]
        gaps = [later - earlier for earlier, later in pairwise(recent)]
        assert gaps
        assert max(gaps) <= bound


async def test_the_stated_seconds_hold_while_every_question_is_late(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Another question often has the shared connection when one of the routine is due."""
    story = Story(nursery, Budget(3))
    budget, agent = story.budget, story.agent
    agent.takes = 0.1
    for name, rank in OWN:
        story.start(name, rank)
    for number in range(8):
        story.start(f"list {number}", Rank.ENDPOINTS)

    async def others() -> None:
        while True:
            async with budget.turn(Urgency.OWN):
                await trio.sleep(0.5)
            await trio.sleep(0.3)

    story.nursery.start_soon(others)
    await trio.sleep(20)
    assert budget.turn_seconds == 10.0
    await trio.sleep(200)
    for number in range(8):
        times = [at for at in agent.times(f"list {number}") if at > 20]
        assert max(later - earlier for earlier, later in pairwise(times)) + agent.takes <= 10.0


async def test_a_rest_makes_no_question_of_the_routine_sooner(autojump_clock: MockClock) -> None:
    budget, times = Budget(3), []
    for rest in (0.0, 30.0):
        await trio.sleep(rest)
        for _ in range(4):
            async with budget.turn(Urgency.ROUTINE):
                times.append(trio.current_time())
    assert [later - earlier >= LONGEST for earlier, later in pairwise(times)] == [True] * 7


async def test_a_thousand_unknown_lists_are_asked_for_without_an_interval(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    story = Story(nursery, Budget(3))
    story.agent.takes = 0.002
    for name, rank in OWN:
        story.start(name, rank)
    for number in range(1000):
        story.start(f"list {number}", Rank.ENDPOINTS)
    await trio.sleep(2.1)
    assert {f"list {number}" for number in range(1000)} <= {name for name, _, _ in story.agent.asked}
    assert max(story.agent.times(name)[0] for name, _ in OWN) < 0.1
