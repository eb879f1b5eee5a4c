"""How old a secondary's replica is, beside two embedded datacenters in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.consul.api import Consul
from agent.intentions.replica import DOUBT_SECONDS, Replica, ReplicaReason
from agent.policy.intentions import Intentions, read_match
from certs.bundle import parse_roots
from tests.datacenter.joined import caught_up, joined
from tests.datacenter.world import Site, World, world_b
from tests.scenarios.test_questions_at_rest import Behind

EXACT = "/v1/connect/intentions/exact?source=web&destination=db"
WARN = 30.0
KNOWN: Latest[Any] = Latest("there are credentials")


@dataclass
class Told:
    old: list[str] = field(default_factory=list)
    current: list[str] = field(default_factory=list)

    def replica_old(self, of: str, detail: str) -> None:
        self.old.append(of)

    def replica_current(self, of: str) -> None:
        self.current.append(of)


@dataclass
class Story:
    world: World
    site: Site
    consul: Consul
    told: Told = field(default_factory=Told)
    listed: Intentions | None = None

    async def replica(self, primary: str = "") -> Replica:
        await self.read()
        bundle = parse_roots((await self.consul.roots()).value)
        return Replica(
            consul=self.consul,
            service="db",
            datacenter=lambda: self.site.dc.settings.name,
            listed=lambda: self.listed,
            bundle=lambda: bundle,
            events=self.told,
            rng=Random(1),
            primary=primary,
            warn_seconds=WARN,
        )

    async def read(self) -> None:
        """Take the list as the sidecar's watch does."""
        answer = await self.consul.intentions("db")
        self.listed = await Incremental(read_match(answer.value, "db", default_allow=False)).run()


@asynccontextmanager
async def story(where: str = "dc2", make: Callable[[], World] = world_b) -> AsyncIterator[Story]:
    world = make()
    await joined(world)
    async with trio.open_nursery() as nursery:
        site = world.site(where)
        yield Story(world, site, Behind(site).client(nursery))
        nursery.cancel_scope.cancel()


def reasons(replica: Replica) -> tuple[ReplicaReason, ReplicaReason]:
    return replica.parts["intentions"].reason, replica.parts["roots"].reason


async def test_the_primary_is_found_and_says_the_same(autojump_clock: MockClock) -> None:
    async with story() as told:
        replica = await told.replica()
        await replica.compare()
        assert replica.primary == "dc1"
        assert reasons(replica) == (ReplicaReason.CURRENT, ReplicaReason.CURRENT)
        await trio.sleep(7)
        assert replica.parts["roots"].age == pytest.approx(7, abs=0.1)
        assert replica.complaints == []


async def test_in_the_primary_there_is_no_replica(autojump_clock: MockClock) -> None:
    async with story("dc1") as told:
        replica = await told.replica()
        await replica.compare()
        assert reasons(replica) == (ReplicaReason.PRIMARY, ReplicaReason.PRIMARY)
        assert replica.parts["intentions"].age is None
        assert replica.describe("intentions") == ""


async def test_a_frozen_replication_grows_old_and_is_current_again_when_it_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with story() as told, trio.open_nursery() as nursery:
        replica = await told.replica()
        nursery.start_soon(replica.follow, KNOWN)
        await trio.sleep(60)
        assert told.told.old == []
        await told.world.dc1.ok("PUT", EXACT, {"Action": "deny"})  # dc2 does not copy it
        frozen = trio.current_time()
        await trio.sleep(22 + DOUBT_SECONDS)
        part = replica.parts["intentions"]
        assert part.reason is ReplicaReason.BEHIND
        assert part.age is not None
        await trio.sleep(WARN)
        assert part.age >= trio.current_time() - frozen
        assert told.told.old == ["intentions"]
        (complaint,) = replica.complaints
        assert "replica of intentions" in complaint
        assert "behind: dc1 has others than dc2" in complaint
        await caught_up(told.world)
        await told.read()
        await trio.sleep(2 * DOUBT_SECONDS)
        assert reasons(replica) == (ReplicaReason.CURRENT, ReplicaReason.CURRENT)
        assert (told.told.current, replica.complaints) == (["intentions"], [])
        nursery.cancel_scope.cancel()


async def test_a_wan_that_is_cut_ages_both_and_is_told_once(autojump_clock: MockClock) -> None:
    async with story() as told, trio.open_nursery() as nursery:
        replica = await told.replica()
        nursery.start_soon(replica.follow, KNOWN)
        await trio.sleep(1)
        told.world.down.add("dc1")
        await trio.sleep(120)
        assert reasons(replica) == (ReplicaReason.UNREACHABLE, ReplicaReason.UNREACHABLE)
        assert sorted(told.told.old) == ["intentions", "roots"]
        told.world.down.clear()
        await trio.sleep(2 * DOUBT_SECONDS)
        assert reasons(replica) == (ReplicaReason.CURRENT, ReplicaReason.CURRENT)
        assert sorted(told.told.current) == ["intentions", "roots"]
        nursery.cancel_scope.cancel()


async def test_a_secondary_that_starts_cut_off_is_old_from_its_start_on(autojump_clock: MockClock) -> None:
    async with story() as told:
        told.world.down.add("dc1")
        replica = await told.replica()
        await trio.sleep(50)
        await replica.compare()
        assert replica.parts["roots"].reason is ReplicaReason.UNREACHABLE
        assert replica.describe("roots").startswith("50 s since the start (primary unknown, unreachable:")


async def test_the_setting_names_a_primary_that_does_not_show(autojump_clock: MockClock) -> None:
    async with story() as told:
        replica = await told.replica("dc1")
        await replica.compare()
        assert reasons(replica) == (ReplicaReason.CURRENT, ReplicaReason.CURRENT)
