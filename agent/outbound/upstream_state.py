"""The state of one upstream: its targets, the active one, its failures, and the connections it serves.

The listener, the candidate search, status and metrics all read it. It outlives changes of the registration:
it takes on a new configuration of the same bind, and goes on counting the live connections.
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
from agent.outbound.reasons import NotServed, OutboundReason
from agent.outbound.refusal import RefusalInquiry
from agent.outbound.warm_connection import WarmBook, WarmConnection
from agent.snapshot import EndpointSource, EndpointSources
from upstreams.choose import Chance
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet
from upstreams.failover import Failover, TargetHealth
from upstreams.reach import AddressWarning, DialAddress, Unreachable, doubt, reach
from upstreams.route import Candidate, RouteContext, candidates, first_choice
from upstreams.spec import Destination, Gateways, TunnelMode, Upstream, WanMode
from upstreams.travel import Travel, TunnelStanding, may_tunnel, travel


class Pool(Protocol):
    """Keeps warm connections ready."""

    ready: deque[WarmConnection]

    def take(self) -> WarmConnection | None:
        """Return a usable connection, which the caller then owns; None if there is none."""


class TargetEvents(Protocol):
    """The events of an upstream; must not block."""

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        """New connections go to another target."""

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        """An endpoint is ejected for `seconds`."""

    def doubted(
        self, upstream: Upstream, endpoint: Endpoint, dialling: DialAddress, found: AddressWarning, /
    ) -> None:
        """An address looks wrong; called once for each endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamContext:
    """What all upstreams of an agent share. `loads` counts the connections of every endpoint.

    `clock` returns seconds and never goes back, so a change of the wall clock lengthens no ejection.
    """

    sources: EndpointSources
    own_datacenter: Callable[[], str]
    wan: WanMode
    rng: Random
    loads: Counter[EndpointKey]
    events: TargetEvents
    clock: Callable[[], float] = trio.current_time
    shun: Shun = nothing
    tunnel: TunnelMode = TunnelMode.NEVER


class UpstreamState:
    """One upstream. `connections` are those of our app that it serves now."""

    def __init__(self, upstream: Upstream, context: UpstreamContext) -> None:
        self._context = context
        self._chance = Chance(context.rng)
        self._route: RouteContext | None = None  # as used last
        self._doubted: set[tuple[EndpointKey, AddressWarning]] = set()
        self._crossed: set[str | None] = set()  # datacenters whose gateways were looked up
        self.connections: set[Connection] = set()
        self.changes = 0  # how often another target became active
        self.overflow: Counter[str] = Counter()  # connections refused because of a limit, by reason
        self.warm: Pool | None = None  # None: no warm connections are wanted
        self.warm_book = WarmBook()
        self.ways: dict[EndpointKey, object] = {}  # by hop; of agent.outbound.at_once, which checks them
        self.refusals = RefusalInquiry(context.sources.explain_refusals)
        self.upstream = upstream
        self.failures = FailureMemory(context.clock, upstream.ejection)
        self.failover = Failover(len(upstream.targets), upstream.hold, context.clock)

    def __repr__(self) -> str:
        return f"<UpstreamState of {self.upstream}>"

    def become(self, upstream: Upstream) -> None:
        """Take on another configuration of the same bind. Failures are forgotten."""
        self.upstream = upstream
        self.failures = FailureMemory(self._context.clock, upstream.ejection)
        self.failover = Failover(len(upstream.targets), upstream.hold, self._context.clock)
        self.ways.clear()

    @property
    def own_datacenter(self) -> str:
        """Our datacenter, empty while unknown."""
        return self._context.own_datacenter()

    @property
    def wan(self) -> WanMode:
        """When WAN addresses are dialled."""
        return self.upstream.wan or self._context.wan

    def may_tunnel(self, candidate: Candidate) -> Travel:
        """Return whether connections to that candidate may travel in a tunnel, and why not."""
        through = candidate.through_gateway
        return may_tunnel(self.upstream, self._context.tunnel, candidate.endpoint, through_gateway=through)

    def travel(self, candidate: Candidate, dialling: DialAddress, tunnels: TunnelStanding) -> Travel:
        """Return how a connection to that candidate travels now."""
        return travel(self.may_tunnel(candidate), candidate.endpoint, dialling, tunnels)

    def would_travel(
        self, endpoint: Endpoint, dialling: DialAddress, tunnels: TunnelStanding | None
    ) -> Travel:
        """Return how a connection to that endpoint would travel, by the way that it would take now."""
        through = self._route_context().gateway_datacenter(endpoint) is not None
        allowed = may_tunnel(self.upstream, self._context.tunnel, endpoint, through_gateway=through)
        return travel(allowed, endpoint, dialling, tunnels)

    @property
    def loads(self) -> Counter[EndpointKey]:
        """The number of connections by endpoint."""
        return self._context.loads

    @property
    def shun(self) -> Shun:
        """The addresses of our own listeners, which must not be dialled."""
        return self._context.shun

    @property
    def active_seconds(self) -> float:
        """Seconds since the active target became so."""
        return self._context.clock() - self.failover.since

    @property
    def pending(self) -> int:
        """How many connections no endpoint serves yet."""
        return sum(not connection.opened for connection in self.connections)

    def sources(self) -> list[EndpointSource]:
        """Return the endpoints of each target, in the order of the targets."""
        upstream = self.upstream
        return [self._context.sources.source(target, upstream.poll_interval) for target in upstream.targets]

    def gateways(self) -> list[EndpointSource]:
        """Return the endpoints of the gateways that were looked up so far."""
        return [self._context.sources.source(Gateways(where), None) for where in self._crossed]

    def active(self) -> Destination:
        """Return the target that new connections go to first."""
        self._judge(self._route_context())
        return self.upstream.targets[self.failover.active]

    def candidates(self) -> Iterator[Candidate]:
        """Yield the candidates for one connection, in the order to try them."""
        route = self._route_context()
        self._judge(route)
        sources = self.sources()
        known = ((number, sources[number].endpoints.value) for number in self.failover.order())
        return candidates([(number, value) for number, value in known if value is not None], route)

    def dialling(self, hop: Endpoint) -> DialAddress:
        """Return the address at which an endpoint or gateway would be dialled now. Raises Unreachable."""
        return reach(hop, own_datacenter=self._context.own_datacenter(), wan=self.wan)

    def address(self, candidate: Candidate) -> DialAddress:
        """Return the address to dial, and report once if it looks wrong. Raises Unreachable."""
        dialling = self.dialling(candidate.hop)
        found = doubt(candidate.hop, dialling)
        if found is not None and (candidate.hop.key, found) not in self._doubted:
            self._doubted.add((candidate.hop.key, found))
            self._context.events.doubted(self.upstream, candidate.hop, dialling, found)
        return dialling

    def first_choice(self) -> tuple[Candidate, DialAddress] | None:
        """Return a candidate that a new connection might try first, and its address. Raises Unreachable."""
        candidate = next(self.candidates(), None)
        if candidate is None:
            return None
        dialling = self.address(candidate)
        return (candidate, dialling) if self.leads(candidate, dialling) else None

    def leads(self, candidate: Candidate, dialling: DialAddress) -> bool:
        """Return whether that candidate at that address still is among the first choices."""
        route = self._route_context()
        self._judge(route)
        endpoints = self.sources()[self.failover.active].endpoints.value
        hop = None if endpoints is None else first_choice(candidate, endpoints, route)
        try:
            return hop is not None and self.dialling(hop) == dialling
        except Unreachable:
            return False

    def failed(self, candidate: Candidate) -> None:
        """Note that a candidate has failed; ask for newer endpoints where they come only when asked for."""
        for source in self.sources():
            if source.polled:
                source.ask_again()
        if self.failures.failed(candidate.hop):
            seconds = self.failures.ejected()[candidate.hop.key]
            self._context.events.ejected(self.upstream, candidate.hop, seconds)

    def succeeded(self, candidate: Candidate) -> None:
        """Note that a candidate has served."""
        self.failures.succeeded(candidate.hop)

    def _route_context(self) -> RouteContext:
        context, known, mode = self._context, self._route, self.upstream.mesh_gateway
        own = context.own_datacenter()
        if known is None or (known.own_datacenter, known.mode, known.failures) != (own, mode, self.failures):
            known = self._route = RouteContext(
                own_datacenter=own,
                mode=mode,
                gateways=self._gateways,
                failures=self.failures,
                chance=self._chance,
                loads=context.loads,
            )
        return known

    def _gateways(self, datacenter: str) -> EndpointSet | None:
        context = self._context
        where = None if datacenter == context.own_datacenter() else datacenter
        self._crossed.add(where)
        return context.sources.source(Gateways(where), None).endpoints.value

    def _judge(self, route: RouteContext) -> None:
        before = self.failover.active
        if len(self.upstream.targets) > 1 and self.failover.judge(self._health(route)):
            self.changes += 1
            targets = self.upstream.targets
            self._context.events.target_changed(self.upstream, targets[before], targets[self.failover.active])

    def _health(self, route: RouteContext) -> list[TargetHealth]:
        return [_target_health(source, route) for source in self.sources()]


@contextmanager
def counted(targets: UpstreamState, key: EndpointKey) -> Iterator[None]:
    """Count one connection more for the endpoint within the block."""
    loads = targets.loads
    loads[key] += 1
    try:
        yield
    finally:
        loads[key] -= 1
        if not loads[key]:
            del loads[key]  # endpoints come and go


def _target_health(source: EndpointSource, route: RouteContext) -> TargetHealth:
    endpoints = source.endpoints.value
    if endpoints is None:
        return TargetHealth.UNKNOWN if source.status.failing is None else TargetHealth.DEAD
    live = endpoints.offered and route.reachable(
        endpoints
    )  # a failover target goes before vanished instances
    return TargetHealth.LIVE if live else TargetHealth.DEAD


@contextmanager
def within_limits(connection: Connection, targets: UpstreamState) -> Iterator[None]:
    """Count the connection within the block. Raises NotServed if a limit of the upstream is reached."""
    full = overflow(targets)
    if full is not None:
        targets.overflow[full.reason.value] += 1
        raise full
    targets.connections.add(connection)
    try:
        yield
    finally:
        targets.connections.remove(connection)


def overflow(targets: UpstreamState) -> NotServed | None:
    """Return the refusal by a limit that is reached, if any."""
    upstream = targets.upstream
    if upstream.max_connections is not None and len(targets.connections) >= upstream.max_connections:
        return NotServed(OutboundReason.OVERFLOW, f"max_connections is {upstream.max_connections}")
    if upstream.max_pending is not None and targets.pending >= upstream.max_pending:
        return NotServed(OutboundReason.PENDING_OVERFLOW, f"max_pending_requests is {upstream.max_pending}")
    return None
