"""The data plane in several processes: workers serve, and this process sends them the newest values.

control process: the control plane, the admin endpoint, the service manager
   │  a socket pair each; the newest values go down, reports come up
   ├── worker 0: listeners, handshakes, verdicts, relay
   └── worker 1: …
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Protocol

import msgspec
import trio

from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.containment import Kept, Where
from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.base.watch_status import WatchStatus
from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.connections.ledger import Ledger
from agent.net.inherited import InheritedSockets
from agent.net.kept import KeptSockets
from agent.net.listeners import ListenerKey
from agent.proxy import liveness
from agent.proxy.dataplane import DataPlaneEvents
from agent.proxy.reconcile import PUBLIC, reconciler
from agent.proxy.report import DataPlaneReport, report
from agent.snapshot import EndpointSource, EndpointSources, Snapshot
from agent.workers.listeners import SharedListeners
from agent.workers.messages import (
    HandedCredentials,
    HandedEndpoints,
    Leaving,
    Unwatched,
    Verbosity,
    hand_on,
    hand_on_confirmation,
)
from agent.workers.process import Spawn
from agent.workers.publisher import Publisher, SendOrder
from agent.workers.reports import AskedAgain, GatewaysWanted, WorkerRequest, merged
from agent.workers.supervisor import Supervisor, WorkerEvents
from certs.contexts import Contexts
from upstreams.endpoints import Endpoint
from upstreams.reach import AddressWarning, DialAddress
from upstreams.spec import Destination, Gateways, Lookup, Upstream

LOOK_SECONDS = 0.05  # the interval at which a drain counts live connections

Share = Callable[[Lookup, float | None, EndpointSource], Awaitable[None]]


class PoolEvents(DataPlaneEvents, WorkerEvents, Protocol):
    """The events of the pool and its listeners; must not block."""

    @property
    def level(self) -> LogLevel:
        """The present log level."""


class SharedSources(EndpointSources, Protocol):
    """Sources of endpoints that report when one is watched, and the state of its watch."""

    def share_with(self, share: Share, on_status: Callable[[WatchStatus], None], /) -> None:
        """Run `share` beside each watch, and call `on_status` when one fails or recovers."""


class _ServedElsewhere:
    """agent.outbound.upstream_state.TargetEvents of a process that serves no connection."""

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        """Logged by the worker that serves."""

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        """Logged by the worker that serves."""

    def doubted(
        self, upstream: Upstream, endpoint: Endpoint, dialling: DialAddress, found: AddressWarning, /
    ) -> None:
        """Logged by the worker that serves."""


class WorkerPool:
    """Serves connections in worker processes (agent.proxy.dataplane.DataPlane)."""

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        settings: Settings,
        sources: SharedSources,
        events: PoolEvents,
        clock: Clock,
        rng: Random,
        spawn: Spawn,
        inherited: InheritedSockets | None = None,
        kept: KeptSockets | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._sources = sources
        self._events = events
        self._clock = clock
        self._level = Latest(events.level)
        self._leaving: Latest[Leaving] = Latest()
        self._numbers = 0
        self._shared: dict[int, tuple[EndpointSource, Callable[[], None]]] = {}
        self._ledger = Ledger(clock, events)  # stays empty: the workers have the connections
        self._publisher = Publisher()
        self._listeners = SharedListeners(events, self._publisher, workers=settings.workers, kept=kept)
        self.reconciler = reconciler(
            snapshot=snapshot,
            settings=settings,
            sources=sources,
            events=_ServedElsewhere(),
            rng=rng,
            ledger=self._ledger,
            listeners=self._listeners,
            serve_inbound=_serve_elsewhere,
            serve_outbound=_serve_elsewhere,
            inherited=inherited,
        )
        self._beat = liveness.new_name()
        self._supervisor = Supervisor(
            beat=self._beat,
            settings=settings,
            spawn=spawn,
            publisher=self._publisher,
            sockets=self,
            on_request=self._on_request,
            events=events,
            clock=clock,
        )
        sources.share_with(self._share, self._watch_changed)

    def reserve(self, admin: Sequence[Address], /) -> None:
        """See `DataPlane`."""
        self._supervisor.reserve(admin)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as tasks:
            self._publisher.start(tasks)
            self._post_values()
            self.reconciler.serve_in(tasks, tasks)
            self._supervisor.start(tasks)
            yield
            tasks.cancel_scope.cancel()

    def _post_values(self) -> None:
        publisher, snapshot = self._publisher, self._snapshot
        publisher.post("deny list", SendOrder.POLICY, snapshot.deny_list, lambda value: value)
        publisher.post("log level", SendOrder.POLICY, self._level, lambda level: Verbosity(level=level))
        publisher.post("leaving", SendOrder.POLICY, self._leaving, lambda value: value)
        publisher.post("registration", SendOrder.REGISTRATION, snapshot.registration, lambda value: value)
        publisher.post("credentials", SendOrder.CREDENTIALS, snapshot.credentials, self._hand_on)
        publisher.post("policy", SendOrder.INTENTIONS, snapshot.policy, lambda value: value)
        publisher.post("confirmed", SendOrder.CONFIRMED, snapshot.confirmed, hand_on_confirmation)
        publisher.post("own intentions", SendOrder.ENDPOINTS, snapshot.own_intentions, lambda value: value)
        publisher.post("outgoing", SendOrder.INTENTIONS, snapshot.source_intentions, lambda value: value)

    # --- agent.proxy.dataplane.DataPlane ---

    async def bind(self, registration: Registration, /) -> None:
        await self.reconciler.bind(registration)

    async def open(self) -> None:
        self._listeners.open()
        await self._supervisor.ready()

    def release(self) -> None:
        self._listeners.release()

    async def follow(self) -> None:
        async with trio.open_nursery() as nursery:
            kept = Kept(nursery, self._events)
            kept.begin(Where.TASK, "registration", self.reconciler.follow)
            kept.begin(Where.TASK, "listeners", self._listeners.retry_failed)

    async def close_public(self) -> None:
        self._leaving.publish(Leaving())
        await self._listeners.close(PUBLIC)

    def hand_over(self) -> None:
        self._leaving.publish(Leaving(replaced=True))
        self._listeners.successor = True

    async def close_listeners(self) -> None:
        await self._listeners.close_all()

    async def drain(self, seconds: float, hurry: trio.Event, /) -> int:
        with trio.move_on_after(seconds):
            while not hurry.is_set():
                if not await self._supervisor.busy():
                    break
                await trio.sleep(LOOK_SECONDS)
        await self._listeners.close_all()
        return await self._supervisor.finish()

    async def report(self, *, rows: bool) -> DataPlaneReport:
        reports = await self._supervisor.reports(rows=rows)
        errors = self._events.internal_errors
        made = report(self._ledger, self.reconciler.upstreams, errors, self._clock(), rows=rows)
        own = await Incremental(made).run()
        processes = self._supervisor.families(reports)
        workers = self._supervisor.rows(reports)
        return msgspec.structs.replace(
            merged(own, reports, self._supervisor.ended, processes=processes, workers=workers),
            unheard=self._supervisor.unheard(reports),
        )

    def live(self) -> int:
        return self._supervisor.live()

    async def failure(self, seconds: float, /) -> str:
        down = self._supervisor.problems()
        if down:
            return down[0]
        opening, contexts = self._listeners.get(PUBLIC), self._snapshot.credentials.value
        failed = await liveness.failure(opening, contexts, self._clock(), self._beat, seconds)
        if failed and liveness.is_full((await self.report(rows=True)).public):
            return ""
        return failed

    def problems(self) -> list[str]:
        return [*self.reconciler.problems, *self._supervisor.problems()]

    def warnings(self) -> list[str]:
        return [*self.reconciler.warnings, *self._supervisor.warnings()]

    def take_level(self, level: LogLevel, /) -> None:
        self._level.publish(level)

    # --- agent.workers.supervisor.WorkerSockets ---

    def sockets(self, slot: int, key: ListenerKey, /) -> Sequence[socket.socket]:
        return self._listeners.sockets(key, slot)

    def give_up(self, slot: int, /) -> None:
        self._listeners.give_up(slot)

    # --- endpoints ---

    async def _share(self, lookup: Lookup, poll_interval: float | None, source: EndpointSource, /) -> None:
        """Publish those endpoints to the workers until cancelled."""
        self._numbers += 1
        number = self._numbers
        cell: Latest[HandedEndpoints] = Latest()

        def publish() -> None:
            failing = source.status.failing
            handed = HandedEndpoints(
                number=number,
                lookup=lookup,
                poll_interval=poll_interval,
                polled=source.polled,
                endpoints=source.endpoints.value,
                failing="" if failing is None else str(failing),
            )
            if handed != cell.value:
                cell.publish(handed)

        self._shared[number] = source, publish
        name = (HandedEndpoints, number)
        withdrawal = Unwatched(number=number)
        self._publisher.post(name, SendOrder.ENDPOINTS, cell, lambda handed: handed, withdrawal=withdrawal)
        try:
            publish()
            version = source.endpoints.version
            while True:
                _, version = await source.endpoints.newer(version)
                publish()
        finally:
            del self._shared[number]
            self._publisher.withdraw(name)

    def _watch_changed(self, status: WatchStatus, /) -> None:
        for source, publish in list(self._shared.values()):
            if source.status is status:
                publish()

    def _on_request(self, message: WorkerRequest) -> None:
        if isinstance(message, GatewaysWanted):
            self._sources.source(Gateways(message.datacenter), None)
        elif not isinstance(message, AskedAgain):
            self._sources.explain_refusals()
        elif message.number in self._shared:
            self._shared[message.number][0].ask_again()

    def _hand_on(self, contexts: Contexts) -> HandedCredentials:
        registration = self._snapshot.registration.value
        assert registration is not None  # credentials are asked for by the registration's service
        at = min(self._clock(), contexts.credentials.leaf.not_after)
        return hand_on(contexts, registration.service, registration.datacenter, at)


async def _serve_elsewhere(sock: socket.socket, *_rest: object) -> None:
    sock.close()  # never called: the sockets listen in the workers
    await trio.lowlevel.checkpoint()
