"""A few connections serve many watches: which hold one, which ask in turn, and who goes first."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random

import pytest
import trio
from trio.testing import MockClock

from agent.base.clock import now
from agent.consul.api import Answer, Blocking
from agent.consul.budget import (
    GLANCE,
    OWN_SECONDS,
    PATIENCE,
    SHORT_WAIT,
    Budget,
    Place,
    Rank,
    Urgency,
)
from agent.consul.watch import WAIT, Cursor, Watch


@dataclass
class Agent:
    """Counts the questions under way; a question with a position is held for its wait."""

    asked: list[tuple[str, float, Blocking]] = field(default_factory=list)
    now: int = 0
    most: int = 0
    takes: float = 0.0

    async def answer(self, name: str, at: Blocking) -> Answer[str]:
        self.asked.append((name, trio.current_time(), at))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(self.takes + (at.wait if at.index else 0.0))
        finally:
            self.now -= 1
        return Answer(value=name, index=7)

    def times(self, name: str) -> list[float]:
        return [at for one, at, _ in self.asked if one == name]


def watching(agent: Agent, name: str, cursor: Cursor = Cursor.INDEX) -> Watch[str, str]:
    return Watch(
        name=name,
        cursor=cursor,
        ask=partial(agent.answer, name),
        read=lambda answer: answer.value,
        publish=lambda _: None,
        poll_interval=3.0,
    )


@dataclass
class Story:
    nursery: trio.Nursery
    budget: Budget
    agent: Agent = field(default_factory=Agent)
    places: dict[str, Place] = field(default_factory=dict)

    def start(self, name: str, rank: Rank, cursor: Cursor = Cursor.INDEX) -> Watch[str, str]:
        watch = watching(self.agent, name, cursor)
        place = self.places[name] = self.budget.place(rank, watch)
        place.join()
        self.nursery.start_soon(watch.follow, now, Random(1))
        return watch


@pytest.fixture
def story(nursery: trio.Nursery) -> Story:
    return Story(nursery, Budget(3))


OWN = [
    ("registration", Rank.REGISTRATION),
    ("leaf", Rank.LEAF),
    ("roots", Rank.ROOTS),
    ("intentions", Rank.INTENTIONS),
]


async def test_never_more_questions_than_connections_and_the_important_ones_are_held(
    story: Story, autojump_clock: MockClock
) -> None:
    for name, rank in reversed(OWN):
        story.start(name, rank)
    for number in range(200):
        story.start(f"list {number}", Rank.ENDPOINTS)
    await trio.sleep(100)
    assert story.agent.most == 3
    assert [name for name, place in story.places.items() if place.holds] == ["intentions", "roots"]
    assert {at.wait for name, _, at in story.agent.asked if name in ("intentions", "roots")} == {WAIT}
    assert {at.wait for name, _, at in story.agent.asked if at.index and name == "leaf"} == {GLANCE}
    assert {tuple(at.params) for name, _, at in story.agent.asked if name[:4] == "list"} == {()}
    assert (story.budget.held, story.budget.in_turn) == (2, 202)


async def test_our_own_service_is_asked_about_although_a_round_takes_longer(
    story: Story, autojump_clock: MockClock
) -> None:
    for name, rank in OWN:
        story.start(name, rank)
    for number in range(1000):
        story.start(f"list {number}", Rank.ENDPOINTS)
    await trio.sleep(150)
    times = story.agent.times("leaf")[2:]
    assert max(b - a for a, b in pairwise(times)) <= OWN_SECONDS + PATIENCE


async def test_a_hurried_list_goes_before_those_that_only_wait_for_their_turn(
    story: Story, autojump_clock: MockClock
) -> None:
    for name, rank in OWN:
        story.start(name, rank)
    watches = [story.start(f"list {number}", Rank.ENDPOINTS) for number in range(400)]
    await trio.sleep(59)
    _, name = min((story.agent.times(f"list {number}")[-1], f"list {number}") for number in range(300, 400))
    await trio.sleep(5)
    assert story.agent.times(name)[-1] < trio.current_time() - 1
    began = trio.current_time()
    watches[int(name.split()[1])].kick()
    await trio.sleep(0.01)
    assert story.agent.times(name)[-1] - began <= 2 * GLANCE


async def test_a_question_of_our_own_gets_one_more_connection_while_the_shared_one_hangs(
    story: Story, autojump_clock: MockClock
) -> None:
    budget, order = story.budget, []

    async def hang() -> None:
        async with budget.turn(Urgency.ROUTINE):
            await trio.sleep(15)

    story.nursery.start_soon(hang)
    await trio.sleep(0.1)
    began = trio.current_time()
    async with budget.turn(Urgency.OWN):
        order.append(trio.current_time() - began)
    assert order == [pytest.approx(PATIENCE)]


async def test_one_connection_more_at_a_time_and_only_where_there_is_room(
    story: Story, autojump_clock: MockClock
) -> None:
    budget, open_now, most, rooms = story.budget, 0, 0, [False, True, True]

    async def room() -> bool:
        await trio.lowlevel.checkpoint()
        return rooms.pop(0) if rooms else True

    async def hang(seconds: float) -> None:
        nonlocal open_now, most
        async with budget.turn(Urgency.OWN):
            open_now += 1
            most = max(most, open_now)
            await trio.sleep(seconds)
            open_now -= 1

    budget.has_room = room
    began = trio.current_time()
    async with trio.open_nursery() as questions:
        questions.start_soon(hang, 15.0)
        await trio.sleep(0.1)
        for _ in range(5):
            questions.start_soon(hang, 1.5)
    assert most == 2
    assert trio.current_time() - began == pytest.approx(15.0)
    assert rooms == []


async def test_what_consul_goes_on_with_is_asked_for_a_short_wait_where_it_may_be_given_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    story = Story(nursery, Budget(3, 16))
    for name, rank in OWN:
        story.start(name, rank)
    story.start("list", Rank.ENDPOINTS)
    story.budget.resize(16)
    await trio.sleep(30)
    waits = {name: at.wait for name, _, at in story.agent.asked if at.index}
    assert waits == {
        "intentions": WAIT,
        "roots": WAIT,
        "leaf": WAIT,
        "registration": SHORT_WAIT,
        "list": WAIT,
    }


async def test_a_place_that_is_left_gives_its_connection_to_the_next(
    story: Story, autojump_clock: MockClock
) -> None:
    for name, rank in OWN:
        story.start(name, rank)
    story.places["intentions"].leave()
    assert [name for name, place in story.places.items() if place.holds and name != "intentions"] == [
        "leaf",
        "roots",
    ]
    story.places["intentions"].join()
    assert [name for name, place in story.places.items() if place.holds] == ["roots", "intentions"]


async def test_without_a_limit_each_watch_holds_a_connection(nursery: trio.Nursery) -> None:
    budget = Budget(0)
    places = [budget.place(rank, watching(Agent(), rank.name)) for rank in Rank]
    for place in places:
        place.join()
    assert [place.holds for place in places] == [rank is not Rank.QUERY for rank in Rank]
    assert budget.turn_seconds == 0.0


async def test_a_query_is_asked_in_its_interval_and_holds_nothing(
    story: Story, autojump_clock: MockClock
) -> None:
    story.start("query", Rank.QUERY, Cursor.POLL)
    await trio.sleep(31)
    assert 9 <= len(story.agent.times("query")) <= 12
    assert story.budget.held == 0


async def test_a_list_in_turn_comes_from_the_agents_cache_but_not_after_a_failed_dial(
    story: Story, autojump_clock: MockClock
) -> None:
    for name, rank in OWN:
        story.start(name, rank)
    watch = story.start("list", Rank.ENDPOINTS)
    await trio.sleep(10)
    cached = [at.cached for name, _, at in story.agent.asked if name == "list"]
    assert cached[0] is False
    assert set(cached[1:]) == {True}
    watch.kick()
    await trio.sleep(0.5)
    assert [at.cached for name, _, at in story.agent.asked if name == "list"][-1] is False


async def test_a_larger_budget_holds_more_and_a_smaller_one_gives_them_back_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    story = Story(nursery, Budget(3, 16))
    for name, rank in OWN:
        story.start(name, rank)
    for number in range(8):
        story.start(f"list {number}", Rank.ENDPOINTS)
    await trio.sleep(30)
    assert (story.agent.most, story.budget.wanted) == (3, 13)
    story.budget.resize(13)
    await trio.sleep(30)
    assert (story.budget.held, story.budget.in_turn, story.budget.turn_seconds) == (12, 0, 0)
    assert story.agent.now == 12
    asked = len(story.agent.asked)
    story.budget.resize(3)
    await trio.sleep(0.01)
    assert story.agent.now <= 3
    assert [name for name, place in story.places.items() if place.holds] == ["roots", "intentions"]
    await trio.sleep(20)
    later = {name for name, _, _ in story.agent.asked[asked:]}
    assert {f"list {number}" for number in range(8)} <= later


async def test_a_budget_without_a_limit_has_no_size(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    budget = Budget(0, 16)
    budget.resize(5)
    assert (budget.connections, budget.most, budget.turn_seconds) == (0, 0, 0)


async def test_a_list_that_gives_its_connection_back_goes_on_at_its_position(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    story = Story(nursery, Budget(3, 16))
    for name, rank in OWN[2:]:
        story.start(name, rank)
    watch = story.start("list", Rank.ENDPOINTS)
    story.budget.resize(16)
    await trio.sleep(30)
    story.budget.resize(3)
    await trio.sleep(30)
    assert [at.index for name, _, at in story.agent.asked if name == "list"][-2:] == [0, 0]
    story.budget.resize(16)
    await trio.sleep(30)
    assert [at.index for name, _, at in story.agent.asked if name == "list"][-1] == 7
    assert watch.status.failures == {}
