"""The data plane of one process: serves connections by the newest values of the snapshot.

`lifecycle` uses the protocol `DataPlane`. `LocalDataPlane` serves in this process,
`agent.workers.pool.WorkerPool` in several others. Neither asks Consul.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from random import Random
from typing import Protocol

import trio

from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.containment import Kept, Where
from agent.base.freshness import Freshness
from agent.base.incremental import Incremental
from agent.config.collisions import ADMIN
from agent.config.options import LogLevel, ProxyProtocol
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.connections.connection import ConnectionEvents, Handling
from agent.connections.ledger import Ledger
from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import CloseReason
from agent.inbound import inbound
from agent.inbound.verdict import Inbound, handling
from agent.net.admission import Slot
from agent.net.inherited import InheritedSockets
from agent.net.kept import KeptSockets
from agent.net.listeners import ListenerEvents, Listeners
from agent.outbound import outbound
from agent.outbound.outbound import Outbound
from agent.outbound.upstream_state import TargetEvents, UpstreamState
from agent.outbound.warm_connection import WarmEvents
from agent.outbound.warm_pools import keep_warm
from agent.proxy import liveness
from agent.proxy.reconcile import PUBLIC, reconciler
from agent.proxy.report import DataPlaneReport, report
from agent.proxy.tunnelling import Tunnelling
from agent.proxy.upstream_report import opening_row
from agent.relay.relay import Relay
from agent.snapshot import EndpointSources, Snapshot

CUT_SECONDS = 5.0  # for tasks of connections that were cut to end
STEPS = 4  # handshake steps before every other task runs, where requests are judged: some 2 ms of work


class DataPlaneEvents(ConnectionEvents, ListenerEvents, TargetEvents, WarmEvents, Protocol):
    """The events of the data plane; must not block."""

    def rejudged(self, closed: int, /) -> None:
        """A change of policy has closed `closed` connections."""


class DataPlane(Protocol):
    """Serves the connections of an agent."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Serve within the block; when it is left every connection has ended."""

    def reserve(self, admin: Sequence[Address], /) -> None:
        """Take these addresses of the admin endpoint, as bound, for our own; called before `running`."""

    async def bind(self, registration: Registration, /) -> None:
        """Bind every address of the first registration. Raises BindFailed."""

    async def open(self) -> None:
        """Accept callers; return once they are served. Raises BindFailed."""

    def release(self) -> None:
        """Close what was bound and never opened."""

    async def follow(self) -> None:
        """Apply each change of the registration, until cancelled."""

    async def close_public(self) -> None:
        """Accept no more callers from the mesh."""

    def hand_over(self) -> None:
        """From now on leave listeners that are closed to another process of the service."""

    async def close_listeners(self) -> None:
        """Accept no more callers."""

    async def drain(self, seconds: float, hurry: trio.Event, /) -> int:
        """Wait for the last connection, at most `seconds` or until `hurry`; return how many were cut."""

    async def report(self, *, rows: bool) -> DataPlaneReport:
        """Return the counters and metrics. `rows`: each connection and upstream as well."""

    def live(self) -> int:
        """Return the number of live connections."""

    async def failure(self, seconds: float, /) -> str:
        """Return what does not answer within so many seconds though it should; empty if all does."""

    def problems(self) -> list[str]:
        """Return what keeps the data plane from serving, one text each."""

    def warnings(self) -> list[str]:
        """Return what the operator must not overlook although the data plane serves."""

    def take_level(self, level: LogLevel, /) -> None:
        """Change the log level."""


class LocalDataPlane:
    """Serves connections in this process. `listeners`: given in a worker, for which another one binds."""

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        settings: Settings,
        sources: EndpointSources,
        events: DataPlaneEvents,
        clock: Clock,
        rng: Random,
        inherited: InheritedSockets | None = None,
        listeners: Listeners | None = None,
        kept: KeptSockets | None = None,
    ) -> None:
        self.snapshot, self.settings = snapshot, settings
        self.ledger, self._relay = Ledger(clock, events), Relay()
        self._clock, self._rng = clock, rng
        self._shared: tuple[Registration, Inbound] | None = None
        self.leaving = trio.Event()  # no more callers are accepted: their tunnels are retired
        self.beat = liveness.new_name()
        self._events, self._steps = events, trio.CapacityLimiter(STEPS)
        self._freshness = Freshness(snapshot.confirmed, settings.intentions_max_age, clock)
        self._reauthorizer = Reauthorizer(
            self.ledger,
            policy=snapshot.policy,
            freshness=self._freshness,
            contexts=snapshot.credentials,
            clock=clock,
            on_closed=events.rejudged,
            faults=events,
            grace=settings.expired_peer_grace,
            deny_list=snapshot.deny_list,
            outgoing=snapshot.source_intentions,
        )
        self.ledger.on_opened = self._reauthorizer.opened
        listeners = Listeners(events, kept) if listeners is None else listeners
        self._reserve(listeners, settings.admin_bind)
        self.reconciler = reconciler(
            snapshot=snapshot,
            settings=settings,
            sources=sources,
            events=events,
            rng=rng,
            ledger=self.ledger,
            listeners=listeners,
            serve_inbound=self.inbound,
            serve_outbound=self.outbound,
            serve_at_once=self.outbound_at_once,
            inherited=inherited,
        )

    @cached_property
    def _tunnelling(self) -> Tunnelling:
        return Tunnelling(
            mode=self.settings.tunnel,
            registrations=self.snapshot.registration,
            outbound=self._outbound,
            faults=self._events,
            shun=self.reconciler.listeners.own.of_upstreams,
        )

    def reserve(self, admin: Sequence[Address], /) -> None:
        self._reserve(self.reconciler.listeners, admin)

    def _reserve(self, listeners: Listeners, admin: Sequence[Address]) -> None:
        for address in admin:
            listeners.own.reserve(address, ADMIN)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with self._relay:
            async with trio.open_nursery() as tasks:
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as loops:
                        self.reconciler.serve_in(loops, connections)
                        tasks.start_soon(self._reauthorizer.run)
                        tasks.start_soon(self._tunnelling.run)
                        yield
                    connections.cancel_scope.deadline = trio.current_time() + CUT_SECONDS
                tasks.cancel_scope.cancel()

    # --- one connection ---

    async def inbound(self, sock: socket.socket, slot: Slot) -> None:
        """Serve a caller from the mesh, unless the registration has lost its app."""
        if (shared := self._inbound()) is None:
            sock.close()
        else:
            await inbound.serve(sock, slot, shared)

    def _inbound(self) -> Inbound | None:
        """Return what callers share, made once for each registration; None if it has no app."""
        registration, shared = self.snapshot.registration.value, self._shared
        if registration is None or registration.local_app is None:
            return None
        if shared is not None and shared[0] is registration:
            return shared[1]
        made = Inbound(
            credentials=self.snapshot.credentials,
            policy=self.snapshot.policy,
            freshness=self._freshness,
            deny_list=self.snapshot.deny_list,
            app=registration.local_app,
            relay=self._relay,
            ledger=self.ledger,
            faults=self._events,
            clock=self._clock,
            handshake_timeout=registration.handshake_timeout,
            connect_timeout=registration.local_connect_timeout,
            http=registration.http,
            underscores_in_headers=registration.underscores_in_headers,
            proxy_protocol=self.settings.proxy_protocol is ProxyProtocol.V2,
            shun=self.reconciler.listeners.own.of_app,
            before_step=self.before_step,
            serve_tunnel=self._tunnelling.serve,
            renewed=self._inbound,
            leaving=self.leaving,
            beat=self.beat.encode(),
        )
        self._shared = (registration, made)
        return made

    async def outbound(self, sock: socket.socket, slot: Slot, targets: UpstreamState) -> None:
        """Serve a connection of our app to an upstream."""
        await outbound.serve(sock, slot.settle, targets, self._outbound(), slot.waited)

    def outbound_at_once(
        self, sock: socket.socket, slot: Slot, again: Callable[[], None], targets: UpstreamState
    ) -> bool:
        """Serve a connection of our app without a task, if a tunnel is ready for it."""
        return self._tunnelling.at_once(sock, slot, again, targets)

    def _outbound(self) -> Outbound:
        registration = self.snapshot.registration.value
        assert registration is not None  # upstreams come from a registration
        return Outbound(
            credentials=self.snapshot.credentials,
            source_intentions=self.snapshot.source_intentions,
            deny_list=self.snapshot.deny_list,
            relay=self._relay,
            ledger=self.ledger,
            clock=self._clock,
            handshake_timeout=registration.handshake_timeout,
            tunnels=self._tunnelling.own,
            own_intentions=self.snapshot.own_intentions,
        )

    async def before_step(self) -> None:
        """Let the relay serve what waits; where requests are judged, let every other task run as well."""
        await self._relay.serve_relay()
        registration, policy = self.snapshot.registration.value, self.snapshot.policy.value
        if registration is None or policy is None:
            return
        if handling(policy, registration.http) is Handling.BY_REQUEST:
            async with self._steps:
                pass

    async def bind(self, registration: Registration, /) -> None:
        await self.reconciler.bind(registration)

    async def open(self) -> None:
        self.reconciler.listeners.open()

    def release(self) -> None:
        self.reconciler.listeners.release()

    async def follow(self) -> None:
        async with trio.open_nursery() as nursery:
            kept = Kept(nursery, self._events)
            kept.begin(Where.TASK, "registration", self.reconciler.follow)
            kept.begin(Where.TASK, "listeners", self.reconciler.listeners.retry_failed)
            kept.begin(Where.TASK, "warm connections", self.keep_warm)

    async def keep_warm(self) -> None:
        """Keep warm connections for the upstreams that want them, until cancelled."""
        await keep_warm(self.reconciler.upstreams, self.snapshot, self._clock, self._rng, self._events)

    async def close_public(self) -> None:
        self.leaving.set()
        await self.reconciler.listeners.close(PUBLIC)

    def hand_over(self) -> None:
        self.leaving.set()  # or the tunnels of before, which end by this alone, would be waited for
        self.reconciler.listeners.successor = True

    async def close_listeners(self) -> None:
        await self.reconciler.listeners.close_all()

    async def drain(self, seconds: float, hurry: trio.Event, /) -> int:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as draining:
                draining.start_soon(_cancel_on, hurry, draining)
                await self.ledger.empty()
                draining.cancel_scope.cancel()
        return await self.cut()

    async def cut(self) -> int:
        """Close every listener and every connection; return how many connections there were."""
        await self.reconciler.listeners.close_all()
        cut = self.ledger.close_all(CloseReason.DRAIN_DEADLINE)
        self.ledger.close_tunnels(CloseReason.DRAIN_DEADLINE if cut else CloseReason.SHUTDOWN)
        with trio.move_on_after(CUT_SECONDS):
            await self.ledger.empty()
        return cut

    async def report(self, *, rows: bool) -> DataPlaneReport:
        return await self.reporting(rows=rows).run()

    def reporting(self, *, rows: bool) -> Incremental[DataPlaneReport]:
        """Return the work of making the report."""
        own, upstreams = self._tunnelling.own, self.reconciler.upstreams
        errors, now = self._events.internal_errors, self._clock()
        return Incremental(report(self.ledger, upstreams, errors, now, rows=rows, tunnels=own))

    def live(self) -> int:
        return self.ledger.count

    async def failure(self, seconds: float, /) -> str:
        opening, contexts = self.reconciler.listeners.get(PUBLIC), self.snapshot.credentials.value
        if liveness.is_full(opening_row(opening)):
            return ""
        return await liveness.failure(opening, contexts, self._clock(), self.beat, seconds)

    def problems(self) -> list[str]:
        return self.reconciler.problems

    def warnings(self) -> list[str]:
        return [*self.reconciler.warnings, *self.ledger.failing.texts(self.reconciler.upstreams.names)]

    def take_level(self, level: LogLevel, /) -> None:
        pass  # `Agent.log` is this process's own log, which the route has set already


async def _cancel_on(event: trio.Event, nursery: trio.Nursery) -> None:
    await event.wait()
    nursery.cancel_scope.cancel()
