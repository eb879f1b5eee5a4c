"""Watches the endpoints of upstreams: one watch per lookup, however many upstreams share it.

A prepared query cannot block, so it is polled, slowly. Its answer depends on the health of the service it
names, so that service is watched beside it, here and where the query has found it; when a check changes
there, the query is asked again at once. A check that changes and changes back between two answers of the list
is never seen in it, though the query may have been answered in between: so an answer that has changed is
asked for once more, after the time that the list may be blind.

Instances that have vanished with their whole node are used for a while (upstreams.vanished). An answer to a
prepared query, or with a filter on checks, leaves critical instances out as if they were gone: it is obeyed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Protocol

import trio

from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Kept, Where, contained
from agent.base.latest import Latest, any_newer
from agent.base.watch_status import WatchStatus
from agent.consul.api import Consul
from agent.consul.budget import Budget, Place, Rank
from agent.consul.watch import RATE
from agent.control.watches import EndpointsWatch, endpoints_watch, own_intentions
from agent.snapshot import EndpointSource, Snapshot
from upstreams.endpoints import Endpoint, EndpointSet
from upstreams.spec import (
    Gateways,
    Lookup,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    Upstream,
)
from upstreams.vanished import Memory, remember

HELD_SECONDS = 2 / RATE  # in which a list that has a connection of its own is surely asked for again

_CROSSING = frozenset({MeshGatewayMode.LOCAL, MeshGatewayMode.REMOTE})

Key = tuple[Lookup, float | None]  # a query's poll interval is part of what is watched
Share = Callable[[Lookup, float | None, EndpointSource], Awaitable[None]]
Begin = Callable[[str, Callable[[], Awaitable[None]]], None]  # a named task, contained


class WatchEvents(FaultEvents, Protocol):
    """The events of a watch; must not block."""

    def watch_failed(self, status: WatchStatus) -> None: ...
    def watch_recovered(self, status: WatchStatus) -> None: ...
    def watch_filtered(self, status: WatchStatus) -> None: ...
    def instances_kept(self, lookup: str, instances: Sequence[Endpoint], seconds: float) -> None: ...
    def instances_not_kept(self, lookup: str, *, offered: bool) -> None: ...


class _Publisher:
    """Publishes the answers of one lookup, and with them the instances that are kept for `grace` seconds."""

    def __init__(
        self, lookup: Lookup, cell: Latest[EndpointSet], grace: float, events: WatchEvents, begin: Begin
    ) -> None:
        self._lookup, self._cell, self._events, self._begin = lookup, cell, events, begin
        self._grace = grace if _shows_critical(lookup) else 0.0
        self._memory: Memory | None = None
        self._forgets = False

    def take(self, answer: EndpointSet) -> None:
        """Publish a newer answer."""
        self._become(remember(self._memory, answer, now=trio.current_time(), grace=self._grace))
        if self._memory is not None and self._memory.kept and not self._forgets:
            self._forgets = True
            self._begin(f"vanished instances of {self._lookup}", self._forget)

    async def _forget(self) -> None:
        """Publish what is left whenever the time of a kept instance is over, until none is kept."""
        try:
            while self._memory is not None and self._memory.ends is not None:
                await trio.sleep_until(self._memory.ends)
                self._become(self._memory.without_the_late(trio.current_time()))
        finally:
            self._forgets = False

    def _become(self, memory: Memory) -> None:
        before, self._memory = self._memory, memory
        self._cell.publish(memory.endpoints)
        kept = tuple(one.endpoint for one in memory.kept)
        used = () if before is None else tuple(one.endpoint for one in before.kept)
        if kept and kept != used:
            seconds = max(one.until for one in memory.kept) - trio.current_time()
            self._events.instances_kept(str(self._lookup), kept, seconds)
        elif used and not kept:
            self._events.instances_not_kept(str(self._lookup), offered=memory.answer.offered)


@dataclass(slots=True, kw_only=True)
class _Feed:
    watch: EndpointsWatch
    source: EndpointSource
    place: Place
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class EndpointWatches:
    """The watches of all lookups that are wanted now."""

    def __init__(
        self,
        consul: Consul,
        *,
        snapshot: Snapshot,
        clock: Clock,
        rng: Random,
        events: WatchEvents,
        budget: Budget | None = None,
        vanished_grace: float = 0.0,
    ) -> None:
        self._consul = consul
        self._vanished_grace = vanished_grace
        self._budget = budget or Budget()
        self._nursery: trio.Nursery
        self._snapshot = snapshot
        self._explaining = False
        self._clock = clock
        self._rng = rng
        self._events = events
        self._share: Share | None = None  # runs beside each watch
        self._on_status: Callable[[WatchStatus], None] | None = None
        self._feeds: dict[Key, _Feed] = {}
        self._wanted: set[Key] = set()
        self._behind: dict[Key, frozenset[Key]] = {}  # a query's key to those of the services it depends on
        self._crossing = False
        self._resumed: Mapping[Key, EndpointSet] = {}  # of the last run, until Consul answers

    def start(self, nursery: trio.Nursery) -> None:
        """Run the watches in `nursery` from now on."""
        self._nursery = nursery

    def resume(self, known: Mapping[Key, EndpointSet]) -> None:
        """Use the endpoints of the last run wherever Consul has not answered yet."""
        self._resumed = known
        for key, feed in self._feeds.items():
            if key in known and feed.source.endpoints.value is None:
                feed.source.endpoints.publish(known[key])

    def known(self) -> dict[Key, EndpointSource]:
        """Return the source of every lookup that is watched."""
        return {key: feed.source for key, feed in self._feeds.items()}

    def share_with(self, share: Share, on_status: Callable[[WatchStatus], None]) -> None:
        """Run `share` beside each watch, and call `on_status` when one fails or recovers: for workers."""
        self._share = share
        self._on_status = on_status

    def source(self, lookup: Lookup, poll_interval: float | None, /) -> EndpointSource:
        """Return the source of a lookup, watched from now on (agent.snapshot.EndpointSources).

        A lookup that no upstream needs stays unwatched, though a connection of a removed upstream may ask for
        it.
        """
        key = _key(lookup, poll_interval)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._make(key)
            if self._needs(key):
                self._feeds[key] = feed
                feed.place.join()
                self._nursery.start_soon(self._follow, key, feed)
        return feed.source

    def statuses(self) -> list[WatchStatus]:
        """Return the state of every watch."""
        return [feed.watch.status for feed in self._feeds.values()]

    def want(self, upstreams: Iterable[Upstream]) -> None:
        """Watch what these upstreams need and nothing else; existing watches are not disturbed.

        Gateways are watched once a connection looks for them, since only a query's answer says where it
        leads.
        """
        wanted = list(upstreams)
        self._wanted = {
            _key(target, upstream.poll_interval) for upstream in wanted for target in upstream.targets
        }
        self._crossing = any(upstream.mesh_gateway in _CROSSING for upstream in wanted)
        self._behind = {key: behind for key, behind in self._behind.items() if key in self._wanted}
        self._settle()

    def refresh_all(self) -> None:
        """Let every watch ask again soon, since the token has changed."""
        for feed in self._feeds.values():
            feed.watch.kick()

    def explain_refusals(self) -> None:
        """Look up once who may call whom, since a callee has refused us; one question at a time."""
        registration = self._snapshot.registration.value
        if registration is not None and not self._explaining:
            self._explaining = True
            explain = (Where.TASK, "why a callee refused us", self._explain, registration.service)
            self._nursery.start_soon(contained, self._events, *explain)

    async def _explain(self, service: str) -> None:
        try:
            self._snapshot.own_intentions.publish(await own_intentions(self._consul, service))
        finally:
            self._explaining = False

    def _failed(self, status: WatchStatus) -> None:
        self._events.watch_failed(status)
        if self._on_status is not None:
            self._on_status(status)

    def _recovered(self, status: WatchStatus) -> None:
        self._events.watch_recovered(status)
        if self._on_status is not None:
            self._on_status(status)

    def _begin(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(contained, self._events, Where.TASK, name, task)

    def _make(self, key: Key) -> _Feed:
        lookup, poll_interval = key
        endpoints: Latest[EndpointSet] = Latest(self._resumed.get(key))
        publisher = _Publisher(lookup, endpoints, self._vanished_grace, self._events, self._begin)
        watch = endpoints_watch(self._consul, lookup, publisher.take, poll_interval)
        watch.on_failure, watch.on_recovery = self._failed, self._recovered
        watch.on_filtered = self._events.watch_filtered
        rank = Rank.QUERY if isinstance(lookup, QueryDestination) else Rank.ENDPOINTS
        place = self._budget.place(rank, watch)
        source = EndpointSource(
            endpoints=endpoints,
            status=watch.status,
            ask_again=watch.kick,
            is_polled=lambda: place.in_turn,
            answers_at_once=rank is not Rank.QUERY,
        )
        return _Feed(watch=watch, source=source, place=place)

    def _needs(self, key: Key) -> bool:
        if isinstance(key[0], Gateways):
            return self._crossing
        return key in self._wanted or any(key in behind for behind in self._behind.values())

    def _settle(self) -> None:
        """End the watches that are not needed any more, and start the missing ones."""
        for key in [key for key in self._feeds if not self._needs(key)]:
            feed = self._feeds.pop(key)
            feed.place.leave()
            feed.scope.cancel()
        for lookup, poll_interval in self._wanted.union(*self._behind.values()):
            self.source(lookup, poll_interval)

    async def _follow(self, key: Key, feed: _Feed) -> None:
        with feed.scope:
            async with trio.open_nursery() as nursery:
                kept, name = Kept(nursery, self._events), feed.watch.name
                kept.begin(Where.WATCH, name, feed.watch.follow, self._clock, self._rng)
                if self._share is not None:
                    kept.begin(Where.WATCH, name, self._share, *key, feed.source)
                if isinstance(key[0], QueryDestination):
                    kept.begin(Where.WATCH, name, self._ask_on_flips, key, key[0], feed.source)

    async def _ask_on_flips(self, key: Key, query: QueryDestination, source: EndpointSource) -> None:
        confirmed = 0  # the version that was asked for once more
        while True:
            answer, version = await source.endpoints.newer(0)
            lookups = _services_behind(query, answer, self._snapshot.own_datacenter())
            self._behind[key] = frozenset(_key(lookup, None) for lookup in lookups)
            self._settle()
            health = [self.source(lookup, None) for lookup in lookups]
            seen = [(one.endpoints, one.endpoints.version) for one in health]
            patience = inf if version == confirmed else self._blind_seconds(health)
            with trio.move_on_after(patience) as quiet:
                await any_newer([(source.endpoints, version), *seen])
            if quiet.cancelled_caught:
                confirmed = version
            if quiet.cancelled_caught or any(cell.version > before > 0 for cell, before in seen):
                source.ask_again()

    def _blind_seconds(self, lists: Iterable[EndpointSource]) -> float:
        """Return the seconds in which a change in these lists may come and go without being seen."""
        in_turn = any(one.is_polled() for one in lists)
        return max(HELD_SECONDS, self._budget.turn_seconds if in_turn else 0.0)


def _shows_critical(lookup: Lookup) -> bool:
    """Return whether the answer has critical instances too, so that one which is missing is gone."""
    if isinstance(lookup, ServiceDestination):
        return "Checks" not in lookup.filter
    return isinstance(lookup, Gateways)


def _services_behind(query: QueryDestination, answer: EndpointSet, own: str) -> list[ServiceDestination]:
    """Return the services a query depends on: where it looks first, and where it has found another one."""
    if not answer.service:
        return []
    found_in = None if answer.datacenter == own else answer.datacenter or query.datacenter
    where = dict.fromkeys((query.datacenter, found_in))
    return [ServiceDestination(answer.service, datacenter) for datacenter in where]


def _key(lookup: Lookup, poll_interval: float | None) -> Key:
    """Return the key; only a query has an interval, so a service is watched once for all its upstreams."""
    return lookup, poll_interval if isinstance(lookup, QueryDestination) else None
