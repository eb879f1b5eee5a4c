"""How often an agent asks where its upstreams are, by the count of the datacenters themselves.

Two datacenters and the agent's watches in one process, in virtual time: ten minutes at rest, then a failure.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import trio
from trio.testing import MockClock

from agent.base.latest import Latest
from agent.control.endpoints import EndpointWatches
from agent.log.events import Journal
from agent.outbound.candidates import CandidateSearch
from agent.outbound.upstream_state import UpstreamState
from agent.snapshot import Snapshot
from datacenter.http.frame import RawRequest
from tests.datacenter.world import BEGIN, Site, World, world_b
from tests.support.agent_parts import registration
from tests.support.fake_consul import FakeConsul, Scripted
from tests.support.upstream_doubles import Told, surroundings
from upstreams.spec import Destination, LocalBind, QueryDestination, ServiceDestination, Upstream

figures = logging.getLogger("scenarios.figures")

MINUTES = 10
HEALTH, QUERY = "v1_health_connect_", "v1_query_"
HELD = "consul.rpc.queries_blocking"
HERE, FAR, NEAR = ServiceDestination("db"), ServiceDestination("db", "dc2"), QueryDestination("near")
DESTINATIONS: list[Destination] = [HERE, FAR, HERE, NEAR, NEAR, NEAR]
UPSTREAMS = [
    Upstream(destination=destination, bind=LocalBind("127.0.0.1", port))
    for port, destination in enumerate(DESTINATIONS, start=9000)
]


class Behind(FakeConsul):
    """A datacenter's own answers where others are scripted."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site

    async def _decide(self, request: h11.Request, body: bytes) -> Scripted:
        split = urlsplit(request.target.decode())
        raw = RawRequest(
            method=request.method.decode(),
            path=unquote(split.path),
            query=split.query,
            headers={name.decode(): value.decode() for name, value in request.headers},
            body=body,
        )
        reply = await self._site.frame.handle(raw)
        return Scripted(status=reply.status, body=reply.body, headers=reply.headers)


def clock() -> datetime:
    return BEGIN + timedelta(seconds=trio.current_time())


@dataclass(slots=True)
class Story:
    world: World
    feeds: EndpointWatches

    async def calls(self) -> Counter[str]:
        """Calls of dc1's endpoints so far, by path."""
        answer = await self.world.dc1.ok("GET", "/v1/agent/metrics")
        return Counter({sample["Labels"]["path"]: sample["Count"] for sample in answer["Samples"]})

    async def held(self) -> dict[str, int]:
        """Blocking reads by the datacenter that holds them."""
        gauges = {}
        for name, site in self.world.sites.items():
            told = (await site.ok("GET", "/v1/agent/metrics"))["Gauges"]
            (gauges[name],) = (gauge["Value"] for gauge in told if gauge["Name"] == HELD)
        return gauges


async def instance(site: Site, name: str) -> None:
    """One of db, with a check of its own."""
    sidecar: dict[str, Any] = {"Port": 20000, "Checks": [{"CheckID": f"pulse-{name}", "TTL": "1h"}]}
    service = {"ID": name, "Name": "db", "Port": 5432, "Connect": {"SidecarService": sidecar}}
    await site.ok("PUT", "/v1/agent/service/register", service)
    site.say(f"pulse-{name}", "passing")


@asynccontextmanager
async def story() -> AsyncIterator[Story]:
    """db once in each datacenter; a query for it that may go to dc2."""
    world = world_b()
    await instance(world.dc1, "db-1")
    await instance(world.dc2, "db-far")
    service = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "Connect": True}
    await world.dc1.ok("POST", "/v1/query", {"Name": "near", "Service": service})
    async with trio.open_nursery() as nursery:
        feeds = EndpointWatches(
            Behind(world.dc1).client(nursery),
            snapshot=Snapshot(registration=Latest(registration(datacenter="dc1"))),
            clock=clock,
            rng=Random(1),
            events=Journal(io.StringIO(), clock),
        )
        feeds.start(nursery)
        feeds.want(UPSTREAMS)
        await trio.sleep(10)
        yield Story(world, feeds)
        nursery.cancel_scope.cancel()


async def test_each_watch_is_one_held_read_and_a_query_is_asked_twice_a_minute(
    autojump_clock: MockClock,
) -> None:
    async with story() as told:
        before = await told.calls()
        for _ in range(MINUTES):
            await trio.sleep(60)
            assert await told.held() == {"dc1": 1, "dc2": 1}
        asked = await told.calls() - before
        watches = len(told.feeds.statuses()) - 1
        assert watches == 2
        figures.info("%d minutes at rest, %d watches and a query: %s", MINUTES, watches, dict(asked))
        # Consul holds a read for up to a sixteenth longer than it is asked to.
        assert 0.9 * watches * MINUTES <= asked[HEALTH] <= watches * MINUTES
        assert 2 / 1.1 * MINUTES - 1 <= asked[QUERY] <= 2 / 0.9 * MINUTES + 1
        assert asked.keys() <= {HEALTH, QUERY, "v1_agent_metrics"}


async def test_after_a_total_failure_news_come_within_two_seconds_and_a_handful_of_questions(
    autojump_clock: MockClock,
) -> None:
    async with story() as told:
        targets = UpstreamState(UPSTREAMS[-1], surroundings(told.feeds, Told()))
        search = CandidateSearch(targets)
        first = await search.next()
        assert first is not None
        targets.failed(first)
        before = await told.calls()
        found = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_after, 0.7, told.world.dc1, "db-2")
            began = trio.current_time()
            found = await search.next()
        assert found is not None
        assert found.hop.service_id == "db-2-sidecar-proxy"
        assert trio.current_time() - began < 2
        assert (await told.calls() - before)[QUERY] <= 4


async def _after(seconds: float, site: Site, name: str) -> None:
    await trio.sleep(seconds)
    await instance(site, name)
