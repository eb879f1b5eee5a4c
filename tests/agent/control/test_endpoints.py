"""One watch for each lookup, however many upstreams share it; queries are polled slowly at rest."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.base.latest import Latest
from agent.consul.budget import Budget
from agent.control.endpoints import EndpointWatches
from agent.log.events import Journal
from agent.snapshot import Snapshot
from certs.spiffe import ServiceId, TrustDomain
from tests.support.agent_parts import registration
from tests.support.fake_consul import FakeConsul
from upstreams.endpoints import EndpointSet
from upstreams.spec import (
    Destination,
    Gateways,
    LocalBind,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    Upstream,
)

HEALTH, QUERY, GATES = "/v1/health/connect/db", "/v1/query/near/execute", "/v1/health/service/mesh-gateway"
DB, NEAR = ServiceDestination("db", "dc2"), QueryDestination("near")


def upstream(destination: Destination, port: int = 9191, **more: Any) -> Upstream:
    return replace(Upstream(destination=destination, bind=LocalBind("127.0.0.1", port)), **more)


def entry(name: str = "db-1", status: str = "passing") -> dict[str, Any]:
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc2"},
        "Service": {"ID": name, "Port": 1, "Proxy": {"DestinationServiceName": "db"}},
        "Checks": [{"Status": status}],
    }


def clock() -> datetime:
    return datetime(2031, 5, 17, tzinfo=UTC) + timedelta(seconds=trio.current_time())


@dataclass(slots=True)
class Story:
    consul: FakeConsul
    feeds: EndpointWatches
    snapshot: Snapshot

    def asked(self, path: str) -> int:
        return len(self.consul.questions(path))


@asynccontextmanager
async def story(budget: Budget | None = None) -> AsyncIterator[Story]:
    async with trio.open_nursery() as nursery:
        consul = FakeConsul()
        consul.answer(HEALTH, [entry()], index=5)
        consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "Datacenter": "dc2", "DNS": {"TTL": ""}})
        consul.answer(GATES, [], index=9)
        snapshot = Snapshot(registration=Latest(registration(datacenter="dc1")))
        feeds = EndpointWatches(
            consul.client(nursery),
            snapshot=snapshot,
            clock=clock,
            rng=Random(1),
            events=Journal(io.StringIO(), clock),
            budget=budget,
        )
        feeds.start(nursery)
        yield Story(consul, feeds, snapshot)
        nursery.cancel_scope.cancel()


async def first(told: Story, lookup: Destination, poll_interval: float | None = None) -> EndpointSet:
    return await told.feeds.source(lookup, poll_interval).endpoints.first()


async def test_upstreams_with_one_lookup_share_one_watch(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(DB, 1), upstream(DB, 2), upstream(NEAR, 3), upstream(NEAR, 4)])
        await first(told, DB)
        await first(told, NEAR)
        await trio.sleep(10)
        names = [status.name for status in told.feeds.statuses()]
        assert sorted(names) == ["endpoints db", "endpoints db@dc2", "endpoints prepared_query:near"]
        assert told.asked(HEALTH) == 4  # of each one answered, one held
        assert told.asked(QUERY) == 2  # what is new is confirmed


async def test_a_filter_is_another_lookup_and_is_asked_for(autojump_clock: MockClock) -> None:
    async with story() as told:
        narrow = msgspec.structs.replace(DB, filter="Service.Meta.v == 2", near="_agent")
        told.feeds.want([upstream(DB, 1), upstream(narrow, 2)])
        assert not (await first(told, DB)).nearest_first
        assert (await first(told, narrow)).nearest_first
        questions = [asked.query for asked in told.consul.questions(HEALTH)]
        assert {"dc": "dc2"} in questions
        assert {"dc": "dc2", "filter": "Service.Meta.v == 2", "near": "_agent"} in questions


async def test_stand_ins_are_watched_as_well(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(DB, failover=(NEAR,))])
        await first(told, DB)
        await first(told, NEAR)


async def test_what_nobody_needs_any_more_is_not_watched_even_if_asked_for(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(DB)])
        await first(told, DB)
        told.feeds.want([])
        assert told.feeds.statuses() == []
        assert told.feeds.source(DB, None).endpoints.value is None
        assert told.feeds.statuses() == []
        before = told.asked(HEALTH)
        await trio.sleep(600)
        assert told.asked(HEALTH) == before


async def test_at_rest_a_query_is_asked_twice_a_minute(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(NEAR, port) for port in range(1, 4)])
        await trio.sleep(600)
        assert 18 <= told.asked(QUERY) <= 23


@pytest.mark.parametrize(("ttl", "least", "most"), [("20s", 28, 33), ("1s", 55, 66), ("1h", 9, 12)])
async def test_the_ttl_of_a_query_is_a_hint_within_bounds(
    autojump_clock: MockClock, ttl: str, least: int, most: int
) -> None:
    async with story() as told:
        told.consul.replace(QUERY)
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "DNS": {"TTL": ttl}})
        told.feeds.want([upstream(NEAR)])
        await trio.sleep(600)
        assert least <= told.asked(QUERY) <= most


async def test_an_interval_that_was_set_wins_over_the_ttl(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.replace(QUERY)
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "DNS": {"TTL": "20s"}})
        told.feeds.want([upstream(NEAR, poll_interval=5.0)])
        await trio.sleep(600)
        assert 108 <= told.asked(QUERY) <= 134


async def test_asked_early_a_query_answers_at_once_but_not_more_than_once_a_second(
    autojump_clock: MockClock,
) -> None:
    async with story() as told:
        told.feeds.want([upstream(NEAR)])
        source = told.feeds.source(NEAR, None)
        await first(told, NEAR)
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [entry("db-2")], "Datacenter": "dc2"})
        before, version = trio.current_time(), source.endpoints.version
        source.ask_again()
        await source.endpoints.newer(version)
        assert trio.current_time() - before < 0.1
        asked, began = told.asked(QUERY), trio.current_time()
        while trio.current_time() < began + 60:
            source.ask_again()
            await trio.sleep(0.01)
        assert told.asked(QUERY) - asked <= 66


async def test_gateways_are_watched_once_they_are_looked_for(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(DB, mesh_gateway=MeshGatewayMode.REMOTE)])
        assert told.asked(GATES) == 0
        assert await told.feeds.source(Gateways("dc2"), None).endpoints.first() == EndpointSet(
            endpoints=(), source="health of mesh gateways@dc2"
        )
        assert told.consul.questions(GATES)[0].query == {"dc": "dc2"}
        told.feeds.want([upstream(DB, mesh_gateway=MeshGatewayMode.REMOTE)])
        assert len(told.feeds.statuses()) == 2
        told.feeds.want([upstream(DB)])
        assert len(told.feeds.statuses()) == 1


async def test_the_last_good_list_stays_through_an_outage(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(DB)])
        source = told.feeds.source(DB, None)
        await source.endpoints.first()
        told.consul.down = True
        told.consul.answer(HEALTH, [], status=500, text="No cluster leader")
        await trio.sleep(600)
        assert source.endpoints.value is not None
        assert len(source.endpoints.value.endpoints) == 1
        assert source.status.failing is not None


async def test_everything_is_asked_again_when_the_token_changes(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(NEAR)])
        await first(told, NEAR)
        before = told.asked(QUERY)
        told.feeds.refresh_all()
        await trio.sleep(1.5)
        assert told.asked(QUERY) == before + 1


async def test_when_a_check_flips_behind_a_query_it_is_asked_again_at_once(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(NEAR)])
        source = told.feeds.source(NEAR, None)
        await first(told, NEAR)
        await trio.sleep(5)
        before, version = told.asked(QUERY), source.endpoints.version
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [], "Datacenter": "dc1"})
        told.consul.answer(HEALTH, [entry(status="critical")], index=6)
        began = trio.current_time()
        answer, _ = await source.endpoints.newer(version)
        assert trio.current_time() - began < 0.5
        assert answer.endpoints == ()
        assert told.asked(QUERY) == before + 1


@pytest.mark.parametrize(("connections", "lists", "seconds"), [(0, 0, 2.5), (3, 60, 11.5)])
async def test_a_check_that_flips_there_and_back_between_two_answers_of_the_list(
    autojump_clock: MockClock, connections: int, lists: int, seconds: float
) -> None:
    """The query is answered in between, and the list never shows the flip."""
    async with story(Budget(connections)) as told:
        others = [ServiceDestination(f"other-{number}") for number in range(lists)]
        told.feeds.want([upstream(NEAR), *map(upstream, others)])
        source = told.feeds.source(NEAR, None)
        await first(told, NEAR)
        await trio.sleep(2 * seconds)
        version = source.endpoints.version
        nowhere = {"Service": "db", "Nodes": [], "Datacenter": "dc1"}
        told.consul.answer(QUERY, nowhere)
        source.ask_again()
        answer, version = await source.endpoints.newer(version)
        assert answer.endpoints == ()
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "Datacenter": "dc2"})
        with trio.fail_after(seconds):
            answer, _ = await source.endpoints.newer(version)
        assert len(answer.endpoints) == 1


async def test_the_services_behind_a_query_are_left_with_it(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.feeds.want([upstream(NEAR)])
        await first(told, NEAR)
        await trio.sleep(1)
        assert len(told.feeds.statuses()) == 3
        told.feeds.want([upstream(DB)])
        assert [status.name for status in told.feeds.statuses()] == ["endpoints db@dc2"]
        told.feeds.want([])
        assert told.feeds.statuses() == []


async def test_a_query_answered_at_home_watches_one_service(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.replace(QUERY)
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "Datacenter": "dc1"})
        told.feeds.want([upstream(NEAR)])
        await trio.sleep(5)
        assert len(told.feeds.statuses()) == 2


async def test_a_shuffled_answer_is_no_news(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.replace(QUERY)
        nodes = [entry("a"), entry("b")]
        for _ in range(3):
            told.consul.answer(QUERY, {"Service": "db", "Nodes": nodes, "Datacenter": "dc2"})
            told.consul.answer(QUERY, {"Service": "db", "Nodes": nodes[::-1], "Datacenter": "dc2"})
        told.feeds.want([upstream(NEAR)])
        await trio.sleep(600)
        assert told.feeds.source(NEAR, None).endpoints.version == 1


async def test_a_refusal_is_explained_by_one_question_however_often_it_is_met(
    autojump_clock: MockClock,
) -> None:
    async with story() as told:
        rule = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
        told.consul.answer("/v1/connect/intentions/match", {"web": [rule]}, index=3)
        for _ in range(5):
            told.feeds.explain_refusals()
        known = await told.snapshot.own_intentions.first()
        web = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service="web")
        db = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc2", service="db")
        verdict = known.verdict(web, db)
        assert verdict is not None
        assert "web => db (deny" in verdict.rule
        (asked,) = told.consul.questions("/v1/connect/intentions/match")
        assert asked.query["by"] == "source"
        told.feeds.explain_refusals()
        await told.snapshot.own_intentions.newer(1)
        assert told.asked("/v1/connect/intentions/match") == 2


async def test_a_refusal_that_consul_does_not_explain_says_why(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.hang("/v1/connect/intentions/match")
        told.feeds.explain_refusals()
        assert "not answered within 5 s" in (await told.snapshot.own_intentions.first()).unknown
