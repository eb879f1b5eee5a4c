"""Where the upstreams are, kept up to date: one watch per lookup, however many upstreams share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import trio

from agent.consul import Consul
from agent.feeds import EndpointsWatch, endpoints_watch
from agent.latest import Latest
from agent.targets import Source
from agent.watch import WatchStatus
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, Lookup, MeshGatewayMode, QueryDestination, Upstream

_CROSSING = frozenset({MeshGatewayMode.LOCAL, MeshGatewayMode.REMOTE})

Key = tuple[Lookup, float | None]  # a query's poll interval is part of what is watched


@dataclass(slots=True, kw_only=True)
class _Feed:
    watch: EndpointsWatch
    source: Source
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class EndpointFeeds:
    """The watches of all destinations that are wanted now."""

    def __init__(
        self,
        consul: Consul,
        nursery: trio.Nursery,
        *,
        clock: Callable[[], datetime],
        rng: Random,
        on_failure: Callable[[WatchStatus], None],
        on_recovery: Callable[[WatchStatus], None],
    ) -> None:
        self._consul = consul
        self._nursery = nursery
        self._clock = clock
        self._rng = rng
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._feeds: dict[Key, _Feed] = {}
        self._wanted: set[Key] = set()
        self._crossing = False

    def source(self, lookup: Lookup, poll_interval: float | None, /) -> Source:
        """The source of that lookup (agent.targets.Sources), watched from now on if it was not.

        What no upstream needs any more stays unwatched, though a connection of one that is gone may ask.
        """
        key = _key(lookup, poll_interval)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._make(key)
            if key in self._wanted or (self._crossing and isinstance(lookup, Gateways)):
                self._feeds[key] = feed
                self._nursery.start_soon(self._follow, feed)
        return feed.source

    def statuses(self) -> list[WatchStatus]:
        """How all of them fare."""
        return [feed.watch.status for feed in self._feeds.values()]

    def want(self, upstreams: Iterable[Upstream]) -> None:
        """Watch what these need and nothing else; what was watched already goes on undisturbed.

        Gateways are watched from when one is looked for: a query's answer says late where it leads.
        """
        wanted = list(upstreams)
        self._wanted = {
            _key(target, upstream.poll_interval) for upstream in wanted for target in upstream.targets
        }
        self._crossing = any(upstream.mesh_gateway in _CROSSING for upstream in wanted)
        for key in list(self._feeds):
            if key not in self._wanted and not (self._crossing and isinstance(key[0], Gateways)):
                self._feeds.pop(key).scope.cancel()
        for lookup, poll_interval in self._wanted:
            self.source(lookup, poll_interval)

    def refresh_all(self) -> None:
        """Ask again soon, all of them: the token has changed."""
        for feed in self._feeds.values():
            feed.watch.kick()

    def _make(self, key: Key) -> _Feed:
        lookup, poll_interval = key
        endpoints: Latest[EndpointSet] = Latest()
        watch = endpoints_watch(self._consul, lookup, endpoints.publish, poll_interval)
        watch.on_failure, watch.on_recovery = self._on_failure, self._on_recovery
        source = Source(
            endpoints=endpoints,
            status=watch.status,
            ask_again=watch.kick,
            polled=isinstance(lookup, QueryDestination),
        )
        return _Feed(watch=watch, source=source)

    async def _follow(self, feed: _Feed) -> None:
        with feed.scope:
            await feed.watch.follow(self._clock, self._rng)


def _key(lookup: Lookup, poll_interval: float | None) -> Key:
    """Only a query is polled: whatever interval its neighbours have, a service is watched once."""
    return lookup, poll_interval if isinstance(lookup, QueryDestination) else None
