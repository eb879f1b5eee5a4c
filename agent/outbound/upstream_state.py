"""One upstream at work: where its targets are, which is active, what has failed, and who is being served.

The listener, the search for a candidate, status and metrics all look here. It outlives changes of the
registration: a new configuration for the same bind is taken on, and live connections go on being counted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol

import trio

from agent.connections.connection import Connection
from agent.net.dial import Shun, nothing
from agent.outbound.warm_connection import WarmBook, WarmConnection
from agent.snapshot import EndpointSource, EndpointSources
from upstreams.choose import Chance
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet
from upstreams.failover import Failover, TargetHealth
from upstreams.reach import AddressWarning, DialAddress, Unreachable, doubt, reach
from upstreams.route import Candidate, RouteContext, approaches, first_choice
from upstreams.spec import Destination, Gateways, Upstream, WanMode


class Pool(Protocol):
    """Who keeps connections ready."""

    ready: deque[WarmConnection]

    def take(self) -> WarmConnection | None:
        """One that can be used at once, from now on the caller's; None if there is none."""


class TargetEvents(Protocol):
    """Who is told; must not block."""

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        """Traffic goes to another target from now on."""

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        """An endpoint is left out for so long."""

    def doubted(
        self, upstream: Upstream, endpoint: Endpoint, dialling: DialAddress, found: AddressWarning, /
    ) -> None:
        """An address is odd; told once for each endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamContext:
    """What all upstreams of an agent share. `loads` counts the connections of every endpoint.

    `clock` gives seconds and never goes back: no ejection lasts longer because the wall clock was set.
    """

    sources: EndpointSources
    own_datacenter: Callable[[], str]
    wan: WanMode
    rng: Random
    loads: Counter[EndpointKey]
    events: TargetEvents
    clock: Callable[[], float] = trio.current_time
    shun: Shun = nothing


class UpstreamState:
    """One upstream. `connections` are those of our app that it serves now."""

    def __init__(self, upstream: Upstream, around: UpstreamContext) -> None:
        self._around = around
        self._chance = Chance(around.rng)
        self._doubted: set[tuple[EndpointKey, AddressWarning]] = set()
        self._crossed: set[str | None] = set()  # datacenters whose gateways were asked for
        self.connections: set[Connection] = set()
        self.changes = 0  # of the active target
        self.overflow: Counter[str] = Counter()  # connections refused because of a limit, by reason
        self.warm: Pool | None = None  # None: none is wanted
        self.warm_book = WarmBook()
        self.upstream = upstream
        self.failures = FailureMemory(around.clock, upstream.ejection)
        self.failover = Failover(len(upstream.targets), upstream.hold, around.clock)

    def __repr__(self) -> str:
        return f"<UpstreamState of {self.upstream}>"

    def become(self, upstream: Upstream) -> None:
        """Go over to another configuration of the same bind. What has failed is forgotten."""
        self.upstream = upstream
        self.failures = FailureMemory(self._around.clock, upstream.ejection)
        self.failover = Failover(len(upstream.targets), upstream.hold, self._around.clock)

    @property
    def wan(self) -> WanMode:
        """When WAN addresses are dialled."""
        return self.upstream.wan or self._around.wan

    @property
    def loads(self) -> Counter[EndpointKey]:
        """Connections by endpoint."""
        return self._around.loads

    @property
    def shun(self) -> Shun:
        """Which of our own listeners must not be dialled."""
        return self._around.shun

    @property
    def active_seconds(self) -> float:
        """How long the active target has been so."""
        return self._around.clock() - self.failover.since

    @property
    def pending(self) -> int:
        """Connections that no endpoint serves yet."""
        return sum(not connection.opened for connection in self.connections)

    def sources(self) -> list[EndpointSource]:
        """By target."""
        upstream = self.upstream
        return [self._around.sources.source(target, upstream.poll_interval) for target in upstream.targets]

    def gateways(self) -> list[EndpointSource]:
        """Of the gateways on the ways that were looked for so far."""
        return [self._around.sources.source(Gateways(where), None) for where in self._crossed]

    def active(self) -> Destination:
        """The target that new connections go to first."""
        self._judge(self._terrain())
        return self.upstream.targets[self.failover.active]

    def approaches(self) -> Iterator[Candidate]:
        """The ways for one connection, in the order to try them."""
        terrain = self._terrain()
        self._judge(terrain)
        sources = self.sources()
        known = ((number, sources[number].endpoints.value) for number in self.failover.order())
        return approaches([(number, value) for number, value in known if value is not None], terrain)

    def dialling(self, hop: Endpoint) -> DialAddress:
        """The address of an endpoint or gateway as it would be dialled now. Raises Unreachable."""
        return reach(hop, own_datacenter=self._around.own_datacenter(), wan=self.wan)

    def address(self, approach: Candidate) -> DialAddress:
        """The address to dial; what is odd about it is told once. Raises Unreachable."""
        dialling = self.dialling(approach.hop)
        found = doubt(approach.hop, dialling)
        if found is not None and (approach.hop.key, found) not in self._doubted:
            self._doubted.add((approach.hop.key, found))
            self._around.events.doubted(self.upstream, approach.hop, dialling, found)
        return dialling

    def first_choice(self) -> tuple[Candidate, DialAddress] | None:
        """A way that a new connection might be led before all others, and the address. Raises Unreachable."""
        approach = next(self.approaches(), None)
        if approach is None:
            return None
        dialling = self.address(approach)
        return (approach, dialling) if self.leads(approach, dialling) else None

    def leads(self, approach: Candidate, dialling: DialAddress) -> bool:
        """Whether that way and address still are among the first choices."""
        terrain = self._terrain()
        self._judge(terrain)
        endpoints = self.sources()[self.failover.active].endpoints.value
        hop = None if endpoints is None else first_choice(approach, endpoints, terrain)
        try:
            return hop is not None and self.dialling(hop) == dialling
        except Unreachable:
            return False

    def failed(self, approach: Candidate) -> None:
        """That way did not serve."""
        if self.failures.failed(approach.hop):
            seconds = self.failures.ejected()[approach.hop.key]
            self._around.events.ejected(self.upstream, approach.hop, seconds)

    def succeeded(self, approach: Candidate) -> None:
        """That way serves."""
        self.failures.succeeded(approach.hop)

    def _terrain(self) -> RouteContext:
        around = self._around
        return RouteContext(
            own_datacenter=around.own_datacenter(),
            mode=self.upstream.mesh_gateway,
            gateways=self._gateways,
            failures=self.failures,
            chance=self._chance,
            loads=around.loads,
        )

    def _gateways(self, datacenter: str) -> EndpointSet | None:
        around = self._around
        where = None if datacenter == around.own_datacenter() else datacenter
        self._crossed.add(where)
        return around.sources.source(Gateways(where), None).endpoints.value

    def _judge(self, terrain: RouteContext) -> None:
        before = self.failover.active
        if len(self.upstream.targets) > 1 and self.failover.judge(self._lives(terrain)):
            self.changes += 1
            targets = self.upstream.targets
            self._around.events.target_changed(self.upstream, targets[before], targets[self.failover.active])

    def _lives(self, terrain: RouteContext) -> list[TargetHealth]:
        return [_life(source, terrain) for source in self.sources()]


@contextmanager
def counted(targets: UpstreamState, key: EndpointKey) -> Iterator[None]:
    """For the length of the block the endpoint has one connection more."""
    loads = targets.loads
    loads[key] += 1
    try:
        yield
    finally:
        loads[key] -= 1
        if not loads[key]:
            del loads[key]  # endpoints come and go


def _life(source: EndpointSource, terrain: RouteContext) -> TargetHealth:
    endpoints = source.endpoints.value
    if endpoints is None:
        return TargetHealth.UNKNOWN if source.status.failing is None else TargetHealth.DEAD
    return TargetHealth.LIVE if terrain.reachable(endpoints) else TargetHealth.DEAD
