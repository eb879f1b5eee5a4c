"""Brings listeners and upstreams in line with the registration, and changes only those that differ."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from agent.base.latest import Latest
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.connections.ledger import Ledger
from agent.inbound.exposed import Callers
from agent.net.admission import Admission, Slot
from agent.net.inherited import InheritedSockets, SocketComplaint, SocketReason
from agent.net.listeners import Listeners, Opening, limits_reached
from agent.outbound.listeners import Serve, ServeAtOnce, UpstreamListeners, never
from agent.outbound.upstream_state import TargetEvents, UpstreamContext
from agent.proxy.exposed import ExposedPaths
from agent.snapshot import EndpointSources, Snapshot

PUBLIC = "public"  # the key of the public listener
PUBLIC_PURPOSE = "callers from the mesh"


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Applies registrations: the first raises for an address it cannot bind, each later one retries."""

    registration: Latest[Registration]
    settings: Settings
    listeners: Listeners
    upstreams: UpstreamListeners
    exposed: ExposedPaths
    serve_inbound: Callable[[socket.socket, Slot], Awaitable[None]]
    inherited: InheritedSockets = field(default_factory=InheritedSockets)
    in_force: Registration | None = None
    _reported: Sequence[SocketComplaint] = ()
    _connections: trio.Nursery = field(init=False, repr=False)  # set by `serve_in`

    def serve_in(self, loops: trio.Nursery, connections: trio.Nursery) -> None:
        """Run the accept loops in one nursery and the connections in another."""
        self.listeners.serve_in(loops, connections)
        self._connections = connections

    async def bind(self, registration: Registration) -> None:
        """Bind every address at the start. Raises BindFailed."""
        self.in_force = registration
        if registration.accepts_callers:
            await self.listeners.bind(PUBLIC, self._public(registration))
        await self.upstreams.bind(registration.upstreams)
        await self.exposed.bind(registration)
        self._report_sockets()

    async def follow(self) -> None:
        """Apply every registration after the first, until cancelled."""
        version = 1
        while True:
            registration, version = await self.registration.newer(version)
            await self.change(registration)

    async def change(self, after: Registration) -> None:
        """Apply one registration."""
        before, self.in_force = self.in_force, after
        await self._move_public(before, after)
        await self.exposed.follow(after)
        await self.upstreams.follow(after.upstreams, self.settings.drain_seconds, self._connections)
        self._report_sockets()

    @property
    def problems(self) -> list[str]:
        """What cannot be served, and why."""
        elsewhere = (str(one) for one in self._sockets() if one.reason is SocketReason.ELSEWHERE)
        return [f"listener: {problem}" for problem in (*self.listeners.problems, *elsewhere)]

    @property
    def warnings(self) -> list[str]:
        """What an operator must not overlook although everything is served."""
        unused = [str(one) for one in self._sockets() if one.reason is SocketReason.UNUSED]
        return [*unused, *self.listeners.warnings, *limits_reached(self.listeners)]

    def _sockets(self) -> Sequence[SocketComplaint]:
        now = self.in_force
        if now is None:
            return ()
        return self.inherited.complaints(now.public_bind if now.accepts_callers else None, now.upstreams)

    def _report_sockets(self) -> None:
        before, self._reported = self._reported, self._sockets()
        for complaint in self._reported:
            if complaint not in before:
                self.listeners.events.socket_complaint(complaint)

    async def _move_public(self, before: Registration | None, after: Registration) -> None:
        opening = self.listeners.get(PUBLIC)
        if opening is not None and after.accepts_callers and self._same_place(before, after):
            opening.admission.limit = self._limit(after)
            return
        await self.listeners.close(PUBLIC)
        if after.accepts_callers:
            await self.listeners.add(PUBLIC, self._public(after))

    def _same_place(self, before: Registration | None, after: Registration) -> bool:
        if before is None or before.checked != after.checked:
            return False
        return bool(self.inherited.public) or before.public_bind == after.public_bind

    def _public(self, registration: Registration) -> Opening:
        assert registration.public_bind is not None  # as `accepts_callers` says
        return Opening(
            purpose=PUBLIC_PURPOSE,
            address=registration.public_bind,
            handler=self.serve_inbound,
            admission=Admission(self._limit(registration), self.settings.max_handshakes or None, fair=True),
            inherited=self.inherited.public,
            checked=registration.checked,
            meshed=True,
        )

    def _limit(self, registration: Registration) -> int | None:
        return registration.max_inbound_connections or self.settings.max_connections or None


def reconciler(
    *,
    snapshot: Snapshot,
    settings: Settings,
    sources: EndpointSources,
    events: TargetEvents,
    rng: Random,
    ledger: Ledger,
    listeners: Listeners,
    serve_inbound: Callable[[socket.socket, Slot], Awaitable[None]],
    serve_outbound: Serve,
    serve_at_once: ServeAtOnce = never,
    inherited: InheritedSockets | None = None,
) -> Reconciler:
    """Return a reconciler with the listeners of the upstreams."""
    context = UpstreamContext(
        sources=sources,
        own_datacenter=snapshot.own_datacenter,
        wan=settings.wan_addresses,
        tunnel=settings.tunnel,
        rng=rng,
        loads=Counter(),
        events=events,
        shun=listeners.own.of_upstreams,
    )
    upstreams = UpstreamListeners(
        listeners=listeners,
        sources=sources,
        ledger=ledger,
        serve=serve_outbound,
        serve_at_once=serve_at_once,
        context=context,
        limit=settings.max_connections or None,
        unsettled_limit=settings.max_handshakes or None,
        current={},
        inherited=inherited or InheritedSockets(),
    )
    return Reconciler(
        registration=snapshot.registration,
        settings=settings,
        listeners=listeners,
        upstreams=upstreams,
        exposed=ExposedPaths(listeners=listeners, ledger=ledger, callers=Callers(settings.expose_from)),
        serve_inbound=serve_inbound,
        inherited=upstreams.inherited,
    )
