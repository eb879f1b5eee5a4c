"""The search of one connection, in virtual time: order, deadline, shares of it, and waiting for news."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from agent.outbound.candidates import ASK_SECONDS, MOST_ATTEMPTS, CandidateSearch
from agent.outbound.upstream_state import UpstreamState
from agent.snapshot import NEWS_SECONDS, SOON_SECONDS
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.upstreams.test_choose import Stopwatch, endpoint
from upstreams.endpoints import EndpointSet
from upstreams.spec import LocalBind, MeshGatewayMode, ServiceDestination, Upstream

DB = Upstream(destination=ServiceDestination("db"), bind=LocalBind("127.0.0.1", 9191), deadline=10)


class Story:
    """A search and the lookups it draws on; each way that it finds fails."""

    def __init__(self, upstream: Upstream = DB, *, polled: bool = False) -> None:
        self.lookups = Lookups(polled=polled)
        self.targets = UpstreamState(upstream, surroundings(self.lookups, Told(), Stopwatch()))
        self.targets.sources()

    async def through(self, search: CandidateSearch | None = None) -> list[str]:
        search = search or CandidateSearch(self.targets)
        found = []
        while (way := await search.next()) is not None:
            found.append(way.hop.service_id)
            self.targets.failed(way)
        return found


async def test_each_way_once_and_no_waiting_where_no_news_can_come(autojump_clock: MockClock) -> None:
    story = Story()
    story.lookups.answer("db", endpoint("a"), endpoint("b"))
    assert sorted(await story.through()) == ["a", "b"]
    assert trio.current_time() == 0
    assert story.lookups.asked == {}


async def test_no_more_than_so_many(autojump_clock: MockClock) -> None:
    story = Story()
    story.lookups.answer("db", *(endpoint(str(number)) for number in range(50)))
    assert len(await story.through()) == MOST_ATTEMPTS


async def test_a_polled_lookup_is_asked_at_once_and_its_answer_used(autojump_clock: MockClock) -> None:
    story = Story(polled=True)
    story.lookups.answer("db", endpoint("old"))
    story.lookups.answers["db"] = lambda: EndpointSet(endpoints=(endpoint("new"),))
    assert await story.through() == ["old", "new"]
    assert 1 <= story.lookups.asked["db"] <= 2 + NEWS_SECONDS / ASK_SECONDS  # a failure asks, too


async def test_news_is_not_waited_for_longer_than_a_moment(autojump_clock: MockClock) -> None:
    story = Story(polled=True)
    story.lookups.answer("db", endpoint("a"))
    assert await story.through() == ["a"]
    assert trio.current_time() == pytest.approx(NEWS_SECONDS)


async def test_a_list_in_turn_is_asked_for_by_a_failed_dial_and_waited_for_shortly(
    autojump_clock: MockClock,
) -> None:
    story = Story(polled=True)
    story.lookups.made["db"].answers_at_once = True
    story.lookups.answer("db", endpoint("a"))
    search = CandidateSearch(story.targets)
    way = await search.next()
    assert way is not None
    story.targets.failed(way)
    assert story.lookups.asked["db"] == 1
    assert await search.next() is None
    assert trio.current_time() == pytest.approx(SOON_SECONDS)


async def test_a_first_answer_is_waited_for(autojump_clock: MockClock) -> None:
    story = Story()
    async with trio.open_nursery() as nursery:

        async def answer_late() -> None:
            await trio.sleep(1)
            story.lookups.answer("db", endpoint("a"))

        nursery.start_soon(answer_late)
        assert await story.through() == ["a"]


async def test_a_stand_ins_news_counts_too(autojump_clock: MockClock) -> None:
    story = Story(replace(DB, failover=(ServiceDestination("db", "dc2"),)))
    story.lookups.answer("db", endpoint("a"))
    async with trio.open_nursery() as nursery:

        async def answer_late() -> None:
            await trio.sleep(1)
            story.lookups.answer("db@dc2", endpoint("far", datacenter="dc2"))

        nursery.start_soon(answer_late)
        assert await story.through() == ["a", "far"]


async def test_gateways_that_are_not_known_yet_are_waited_for(autojump_clock: MockClock) -> None:
    story = Story(replace(DB, mesh_gateway=MeshGatewayMode.LOCAL))
    story.lookups.answer("db", endpoint("far", datacenter="dc2"))
    async with trio.open_nursery() as nursery:

        async def answer_late() -> None:
            await trio.sleep(1)
            story.lookups.answer("mesh gateways", endpoint("gate"))

        nursery.start_soon(answer_late)
        assert await story.through() == ["gate"]


async def test_the_deadline_ends_it(autojump_clock: MockClock) -> None:
    story = Story()
    story.lookups.answer("db", *(endpoint(str(number)) for number in range(9)))
    search = CandidateSearch(story.targets)
    tried = 0
    while await search.next() is not None:
        tried += 1
        await trio.sleep(4)
    assert tried == 3
    assert search.late


async def test_the_deadline_holds_while_waiting_for_news(autojump_clock: MockClock) -> None:
    story = Story(replace(DB, deadline=0.5), polled=True)
    assert await story.through() == []
    assert trio.current_time() == pytest.approx(0.5)


async def test_a_step_leaves_their_share_to_the_targets_after_it(autojump_clock: MockClock) -> None:
    story = Story(replace(DB, failover=(ServiceDestination("db", "dc2"),)))
    story.lookups.answer("db", endpoint("a"))
    story.lookups.answer("db@dc2", endpoint("far", datacenter="dc2"))
    search = CandidateSearch(story.targets)
    first = await search.next()
    assert first is not None
    assert search.seconds(first, most=30) == 5
    assert search.seconds(first, most=1) == 1
    await trio.sleep(5)
    second = await search.next()
    assert second is not None
    assert search.seconds(second, most=30) == 5


async def test_who_was_served_has_the_whole_time_again(autojump_clock: MockClock) -> None:
    story = Story()
    story.lookups.answer("db", endpoint("a"), endpoint("b"))
    search = CandidateSearch(story.targets)
    assert await search.next() is not None
    await trio.sleep(3600)  # an app's idle connection, whose peer then goes away
    search.served()
    assert await search.next() is not None
    assert not search.late


async def test_an_instance_that_moved_is_another_way(autojump_clock: MockClock) -> None:
    story = Story(polled=True)
    story.lookups.answer("db", endpoint("a"))
    moved = replace(endpoint("a"), port=2)
    story.lookups.answers["db"] = lambda: EndpointSet(endpoints=(moved,))
    assert await story.through() == ["a", "a"]
