"""Instances that have vanished with their whole node stay in the cell for a while, named; in virtual time."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.control.endpoints import EndpointWatches
from agent.log.events import Journal
from agent.snapshot import Snapshot
from tests.agent.control.test_endpoints import DB, HEALTH, NEAR, QUERY, clock, entry, upstream
from tests.support.fake_consul import FakeConsul, Scripted
from upstreams.endpoints import Status
from upstreams.spec import Destination

GRACE = 30.0


@dataclass(slots=True)
class Story:
    consul: FakeConsul
    feeds: EndpointWatches
    written: io.StringIO

    def statuses(self, lookup: Destination = DB) -> list[Status]:
        """The instances that may be dialled now."""
        endpoints = self.feeds.source(lookup, None).endpoints.value
        assert endpoints is not None
        return [one.status for tier in endpoints.tiers for one in tier.endpoints]

    def events(self) -> list[str]:
        """The log's events about them."""
        return re.findall(r"upstream\.\w+", self.written.getvalue())


def checked(output: str, status: str = "passing") -> dict[str, Any]:
    return entry() | {"Checks": [{"Status": status, "Type": "tcp", "Output": output}]}


@asynccontextmanager
async def story(
    lookup: Destination = DB, grace: float = GRACE, answer: object = None
) -> AsyncIterator[Story]:
    async with trio.open_nursery() as nursery:
        consul, written = FakeConsul(), io.StringIO()
        consul.answer(HEALTH, answer or [checked("Success")], index=5)
        consul.answer(QUERY, {"Service": "db", "Nodes": [entry()], "Datacenter": "dc2"})
        feeds = EndpointWatches(
            consul.client(nursery),
            snapshot=Snapshot(),
            clock=clock,
            rng=Random(1),
            events=Journal(written, clock),
            vanished_grace=grace,
        )
        feeds.start(nursery)
        feeds.want([upstream(lookup)])
        await feeds.source(lookup, None).endpoints.first()
        await trio.sleep(1)
        yield Story(consul, feeds, written)
        nursery.cancel_scope.cancel()


async def test_a_list_that_became_empty_is_used_for_its_time_and_named(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.answer(HEALTH, [], index=6)
        await trio.sleep(2)
        assert told.statuses() == [Status.VANISHED]
        assert told.events() == ["upstream.vanished"]
        assert "db-1 on n1 in dc2 (vanished)" in told.written.getvalue()
        await trio.sleep(GRACE)
        assert told.statuses() == []
        assert told.events() == ["upstream.vanished", "upstream.given_up"]


async def test_a_node_that_comes_back_is_used_until_its_checks_have_run(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.answer(HEALTH, [], index=6)
        await trio.sleep(2)
        told.consul.answer(HEALTH, [checked("", "critical")], index=7)
        await trio.sleep(2)
        assert told.statuses() == [Status.UNCHECKED]
        told.consul.answer(HEALTH, [checked("Success")], index=8)
        await trio.sleep(2)
        assert told.statuses() == [Status.PASSING]
        assert told.events() == ["upstream.vanished", "upstream.vanished", "upstream.returned"]
        await trio.sleep(2 * GRACE)
        assert told.statuses() == [Status.PASSING]


async def test_a_node_that_came_back_late_is_used_until_its_checks_have_run(
    autojump_clock: MockClock,
) -> None:
    """Of a real agent that was away for 15 s, the checks had a result 30 to 40 s after its node had left."""
    async with story() as told:
        told.consul.answer(HEALTH, [], index=6)
        await trio.sleep(20)
        told.consul.answer(HEALTH, [checked("", "critical")], index=7)
        await trio.sleep(20)
        assert told.statuses() == [Status.UNCHECKED]
        await trio.sleep(15)
        assert told.statuses() == []
        assert told.events() == ["upstream.vanished", "upstream.vanished", "upstream.given_up"]


async def test_a_second_loss_has_a_time_of_its_own(autojump_clock: MockClock) -> None:
    async with story() as told:
        for index in (6, 8):
            told.consul.answer(HEALTH, [], index=index)
            await trio.sleep(20)
            assert told.statuses() == [Status.VANISHED]
            told.consul.answer(HEALTH, [checked("Success")], index=index + 1)
            await trio.sleep(2)
            assert told.statuses() == [Status.PASSING]


async def test_an_instance_that_turned_critical_is_obeyed_at_once(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.consul.answer(HEALTH, [checked("connection refused", "critical")], index=6)
        await trio.sleep(2)
        assert told.statuses() == []
        told.consul.answer(HEALTH, [], index=7)
        await trio.sleep(2)
        assert told.statuses() == []
        assert told.events() == []


def of_a_lost_node(output: str = "Success", status: str = "passing") -> dict[str, Any]:
    """Its own check as its agent has reported it last, and what the other agents say of that agent."""
    node = {
        "Status": "critical",
        "Type": "",
        "CheckID": "serfHealth",
        "Output": "Agent not live or unreachable",
    }
    answer = checked(output, status)
    return answer | {"Checks": [*answer["Checks"], node]}


@pytest.mark.parametrize("own", [("Success", "passing"), ("", "critical")])
@pytest.mark.parametrize("vanishes_first", [False, True])
async def test_an_instance_whose_agent_the_others_have_lost_is_obeyed_at_once_though_it_is_the_only_one(
    autojump_clock: MockClock, own: tuple[str, str], vanishes_first: bool
) -> None:
    async with story() as told:
        if vanishes_first:
            told.consul.answer(HEALTH, [], index=6)
            await trio.sleep(2)
            assert told.statuses() == [Status.VANISHED]
        told.consul.answer(HEALTH, [of_a_lost_node(*own)], index=7)
        await trio.sleep(2)
        assert told.statuses() == []
        told.consul.answer(HEALTH, [], index=8)  # the node is reaped, or taken out by an operator
        await trio.sleep(2)
        assert told.statuses() == []
        told.consul.answer(HEALTH, [checked("Success")], index=9)
        await trio.sleep(2)
        assert told.statuses() == [Status.PASSING]


async def test_without_grace_consul_is_obeyed(autojump_clock: MockClock) -> None:
    async with story(grace=0) as told:
        told.consul.answer(HEALTH, [], index=6)
        await trio.sleep(2)
        assert told.statuses() == []


async def test_an_empty_answer_of_a_query_is_obeyed(autojump_clock: MockClock) -> None:
    """It leaves critical instances out, so that nothing shows which of both it is."""
    async with story(NEAR) as told:
        told.consul.answer(QUERY, {"Service": "db", "Nodes": [], "Datacenter": "dc2"})
        told.feeds.source(NEAR, None).ask_again()
        await trio.sleep(2)
        assert told.statuses(NEAR) == []


async def test_an_empty_answer_to_a_filter_on_checks_is_obeyed(autojump_clock: MockClock) -> None:
    lookup = msgspec.structs.replace(DB, filter="Checks.Status != critical")
    async with story(lookup) as told:
        told.consul.answer(HEALTH, [], index=6)
        await trio.sleep(2)
        assert told.statuses(lookup) == []


async def test_a_list_that_acls_have_emptied_is_no_loss_of_the_instances(autojump_clock: MockClock) -> None:
    async with story() as told:
        hidden = {"X-Consul-Results-Filtered-By-ACLs": "true", "X-Consul-Index": "6"}
        told.consul.say(HEALTH, Scripted(body=b"[]", headers=hidden))
        await trio.sleep(2 * GRACE)
        assert told.statuses() == [Status.PASSING]
        assert told.events() == []
