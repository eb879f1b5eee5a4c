"""Where the upstreams are, kept up to date: one watch per destination, however many upstreams share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import trio

from agent.consul import Consul
from agent.feeds import EndpointsWatch, endpoints_watch
from agent.latest import Latest
from agent.watch import WatchStatus
from upstreams.endpoints import EndpointSet
from upstreams.spec import Destination, Upstream

Key = tuple[Destination, float | None]  # a query's poll interval is part of what is watched


@dataclass(slots=True, kw_only=True)
class _Feed:
    watch: EndpointsWatch
    endpoints: Latest[EndpointSet]
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

    def endpoints(self, upstream: Upstream) -> Latest[EndpointSet]:
        """The newest endpoints of an upstream that was among those `want`ed last."""
        return self._feeds[_key(upstream)].endpoints

    def status(self, upstream: Upstream) -> WatchStatus:
        """How the watch behind it fares."""
        return self._feeds[_key(upstream)].watch.status

    def statuses(self) -> list[WatchStatus]:
        """How all of them fare."""
        return [feed.watch.status for feed in self._feeds.values()]

    def want(self, upstreams: Iterable[Upstream]) -> None:
        """Watch what these need and nothing else; what was watched already goes on undisturbed."""
        wanted = {_key(upstream): upstream for upstream in upstreams}
        for key in [key for key in self._feeds if key not in wanted]:
            self._feeds.pop(key).scope.cancel()
        for key, upstream in wanted.items():
            if key not in self._feeds:
                self._feeds[key] = feed = self._open(upstream)
                self._nursery.start_soon(self._follow, feed)

    def refresh(self, destination: str) -> None:
        """Ask again soon: every candidate of that destination has failed. Only a polled one can be asked."""
        for (known, _), feed in self._feeds.items():
            if str(known) == destination:
                feed.watch.kick()

    def refresh_all(self) -> None:
        """Ask again soon, all of them: the token has changed."""
        for feed in self._feeds.values():
            feed.watch.kick()

    def _open(self, upstream: Upstream) -> _Feed:
        endpoints: Latest[EndpointSet] = Latest()
        watch = endpoints_watch(self._consul, upstream.destination, endpoints.publish, upstream.poll_interval)
        watch.on_failure, watch.on_recovery = self._on_failure, self._on_recovery
        return _Feed(watch=watch, endpoints=endpoints)

    async def _follow(self, feed: _Feed) -> None:
        with feed.scope:
            await feed.watch.follow(self._clock, self._rng)


def _key(upstream: Upstream) -> Key:
    return upstream.destination, upstream.poll_interval
