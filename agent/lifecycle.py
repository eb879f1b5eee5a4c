"""The life of one agent: start, serve, drain. The only module that knows everyone.

    relay ⊃ watches ⊃ connections ⊃ listeners

is both the nest of nurseries and, from the inside out, the order of the end: not ready, then nobody is let in
from the mesh, then the connections get their time while credentials and intentions stay live and our app may
still call out, then the watches end, then the relay.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.config.effective import from_settings
from agent.config.opaque_config import ProblemReason
from agent.config.registration import Registration
from agent.config.settings import IdentityKind
from agent.connections.reauthorize import Judge
from agent.connections.records import CloseReason
from agent.consul.watch import WatchStatus
from agent.control.bootstrap import Start
from agent.control.endpoints import EndpointFeeds
from agent.control.plane import OwnWatches
from agent.control.self_registration import SelfRegistration
from agent.crew import Unheard
from agent.net.bind import BindFailed, Bound, bind
from agent.net.listeners import Listeners
from agent.observe.readiness import missing
from agent.observe.routes import routes
from agent.observe.server import Admin
from agent.outbound.warm_pools import keep_warm
from agent.parts import PUBLIC, Parts
from agent.process.memory import give_back
from agent.process.systemd import Inherited, Notifier, public_socket
from agent.proxy.dataplane import Reactions
from agent.proxy.reconcile import Following, assemble
from agent.relay.relay import Relay

ADMIN_MODE = 0o600
CUT_SECONDS = 5.0  # for connections cut at the drain's deadline to take note
LOOK_SECONDS = 1.0  # how often readiness is looked at, for the log and the service manager


@dataclass(slots=True, kw_only=True)
class Lifecycle:
    """Runs the parts of one agent from start to end."""

    parts: Parts
    reactions: Reactions
    notifier: Notifier
    inherited: Sequence[Inherited] = ()
    on_ready: Callable[[], None] = lambda: None
    _drain: trio.Event = field(default_factory=trio.Event)
    _hurry: trio.Event = field(default_factory=trio.Event)
    _why: str = ""

    async def run(self) -> ExitCode:
        """Live to the end; the exit code. Raises Exit, within groups, when it cannot start."""
        self.parts.began = trio.current_time()
        with Relay() as relay:
            self.parts.relay = relay
            async with trio.open_nursery() as watches:
                watches.start_soon(self.parts.journal.keep_up)
                admin = await self._serve_admin(watches)
                if self.parts.crew is not None:
                    self.parts.crew.start(watches)
                try:
                    watches.start_soon(self._hear_signals)
                    watches.start_soon(self._follow_deny_file)
                    watches.start_soon(self.notifier.feed_watchdog)
                    async with trio.open_nursery() as connections:
                        async with trio.open_nursery() as listeners:
                            code = await self._live(relay, watches, connections, listeners)
                        connections.cancel_scope.deadline = trio.current_time() + CUT_SECONDS
                finally:
                    for bound in admin:
                        bound.close()
                watches.cancel_scope.cancel()
        return code

    def drain(self, why: str) -> None:
        """Begin to end; asked a second time, end at once."""
        if self._drain.is_set():
            self._hurry.set()
            return
        self._why = why
        self.parts.phase = Phase.DRAINING
        self._drain.set()

    # --- start ---

    async def _live(
        self, relay: Relay, watches: trio.Nursery, connections: trio.Nursery, listeners: trio.Nursery
    ) -> ExitCode:
        parts = self.parts
        own = OwnWatches(parts=parts, nursery=watches)
        parts.token.on_change = own.token_changed
        judge = Judge(
            parts.ledger,
            parts.intentions,
            parts.contexts,
            parts.clock,
            parts.journal.rejudged,
            grace=parts.settings.expired_peer_grace,
            deny_list=parts.deny_file.latest,
            outgoing=parts.outgoing,
        )
        self.reactions.attach(parts, judge)
        following = self._following(relay, own, connections, listeners)
        try:
            placed = await self._start_in_time(own, following)
        finally:
            if self.parts.phase is not Phase.SERVING:
                following.listeners.release()
        if placed is None:
            return ExitCode.CLEAN  # told to end before it served anybody
        watches.start_soon(judge.run)
        await self._serve(placed, following)
        return await self._end(following.listeners, placed)

    async def _start_in_time(self, own: OwnWatches, following: Following) -> Registration | None:
        """Start; the registration that was carried out, None when told to end meanwhile."""
        placed: Registration | None = None
        began = trio.current_time()
        seconds = self.parts.settings.start_timeout or math.inf
        with trio.move_on_after(seconds) as in_time:
            async with trio.open_nursery() as starting:
                starting.start_soon(_cancel_on, self._drain, starting)
                placed = await self._start(own, following)
                starting.cancel_scope.cancel()
        if in_time.cancelled_caught:
            pieces = "; ".join(missing(self.parts))
            raise Exit(ExitCode.UNAVAILABLE, f"not able to serve within {seconds:g} s: {pieces}")
        if placed is not None and not self._drain.is_set():
            self._now_ready(trio.current_time() - began)
        return placed

    async def _start(self, own: OwnWatches, following: Following) -> Registration:
        parts = self.parts
        own.take(await self._first_registration())
        placed = await parts.placement.first()
        _require_app(placed)
        try:
            await following.bind(placed)
            own.credentials(placed)
            own.nursery.start_soon(own.outgoing)
            if parts.settings.identity is not IdentityKind.SERVICE:
                own.registration(placed.proxy_id)
            await parts.contexts.first()
            if parts.public is not None:
                await parts.intentions.first()
            following.listeners.open()
            if parts.crew is not None:
                await parts.crew.ready()
        except BindFailed as error:
            raise Exit(error.code, str(error)) from error
        return placed

    async def _first_registration(self) -> Registration:
        parts = self.parts
        if parts.settings.identity is IdentityKind.SERVICE:
            return from_settings(parts.settings)
        start = Start(
            consul=parts.consul,
            settings=parts.settings,
            rng=parts.rng,
            on_failure=parts.journal.watch_failed,
            status=parts.start,
            clock=parts.clock,
        )
        return await start.registration(await start.proxy_id())

    def _following(
        self, relay: Relay, own: OwnWatches, connections: trio.Nursery, listeners: trio.Nursery
    ) -> Following:
        parts, crew = self.parts, self.parts.crew
        parts.feeds = EndpointFeeds(
            parts.consul,
            own.nursery,
            own_datacenter=parts.own_datacenter,
            clock=parts.clock,
            rng=parts.rng,
            on_failure=self._endpoints_failed,
            on_recovery=self._endpoints_recovered,
            on_filtered=parts.journal.watch_filtered,
            share=None if crew is None else crew.share,
        )
        if crew is None:
            own_listeners = Listeners(listeners, connections, parts.journal)
        else:
            own_listeners = crew.listeners(listeners, connections)
        return assemble(
            parts,
            relay,
            listeners=own_listeners,
            directory=parts.feeds,
            connections=connections,
            events=parts.journal if crew is None else Unheard(),
            inherited=public_socket(tuple(self.inherited)),
            watch_intentions=own.intentions,
        )

    def _endpoints_failed(self, status: WatchStatus) -> None:
        self.parts.journal.watch_failed(status)
        if self.parts.crew is not None:
            self.parts.crew.watch_changed(status)

    def _endpoints_recovered(self, status: WatchStatus) -> None:
        self.parts.journal.watch_recovered(status)
        if self.parts.crew is not None:
            self.parts.crew.watch_changed(status)

    def _now_ready(self, seconds: float) -> None:
        self.parts.phase = Phase.SERVING
        self.parts.journal.ready(seconds)
        self.notifier.send("READY=1", "STATUS=ready")
        self.on_ready()

    # --- serve ---

    async def _serve(self, placed: Registration, following: Following) -> None:
        """Until told to end."""
        own = self._self_registration(placed)
        async with trio.open_nursery() as serving:
            serving.start_soon(following.follow, placed, 1)
            serving.start_soon(following.listeners.retry_failed)
            serving.start_soon(self._observe)
            serving.start_soon(give_back, lambda: self.parts.ledger.count)
            if self.parts.crew is None:  # workers keep their own
                serving.start_soon(keep_warm, self.parts)  # while draining every connection is dialled
            if own is not None:
                serving.start_soon(own.keep)
            await self._drain.wait()
            serving.cancel_scope.cancel()

    def _self_registration(self, placed: Registration) -> SelfRegistration | None:
        parts = self.parts
        if not parts.settings.register:
            return None
        return SelfRegistration(
            consul=parts.consul,
            registration=placed,
            missing=lambda: missing(parts),
            failed=parts.journal.self_registration_failed,
        )

    async def _observe(self) -> None:
        """Tell the log and the service manager when readiness comes and goes."""
        before: list[str] = []
        while True:
            pieces = missing(self.parts)
            if pieces != before:
                if pieces:
                    self.parts.journal.unready(pieces)
                else:
                    self.parts.journal.ready()
                self.notifier.send(f"STATUS={'; '.join(pieces) or 'ready'}")
                before = pieces
            await trio.sleep(LOOK_SECONDS)

    async def _serve_admin(self, watches: trio.Nursery) -> list[Bound]:
        parts = self.parts
        bound: list[Bound] = []
        try:
            for address in parts.settings.admin_bind:
                bound.append(await bind(address, "the admin endpoint", ADMIN_MODE))
                bound[-1].listen()
        except BindFailed as error:
            for earlier in bound:
                earlier.close()
            raise Exit(error.code, str(error)) from error
        parts.admin_addresses = [one.address for one in bound]
        for address_text in parts.admin_addresses:
            parts.journal.listening("the admin endpoint", address_text)
        admin = Admin(routes(parts, self.drain))
        if bound:
            watches.start_soon(admin.serve, [one.sock for one in bound])
        return bound

    async def _follow_deny_file(self) -> None:
        journal = self.parts.journal
        await self.parts.deny_file.follow(journal.deny_list_changed, journal.deny_list_unusable)

    async def _hear_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                self.drain(signal.Signals(number).name)

    # --- end ---

    async def _end(self, listeners: Listeners, placed: Registration) -> ExitCode:
        parts, crew = self.parts, self.parts.crew
        seconds = parts.settings.drain_seconds
        self.notifier.send("STOPPING=1", "STATUS=draining")
        live = len(parts.ledger.live()) if crew is None else crew.live()
        parts.journal.draining(self._why, live, seconds)
        await listeners.close(PUBLIC)
        own = self._self_registration(placed)
        if own is not None:
            await own.end()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as draining:
                draining.start_soon(_cancel_on, self._hurry, draining)
                await (parts.ledger.empty() if crew is None else crew.empty())
                draining.cancel_scope.cancel()
        await listeners.close_all()
        if crew is None:
            cut = parts.ledger.close_all(CloseReason.DRAIN_DEADLINE)
        else:
            cut = await crew.finish()
        with trio.move_on_after(CUT_SECONDS):
            await parts.ledger.empty()
        parts.journal.drained(cut)
        return ExitCode.FAILED if cut else ExitCode.CLEAN


async def _cancel_on(event: trio.Event, nursery: trio.Nursery) -> None:
    await event.wait()
    nursery.cancel_scope.cancel()


def _require_app(placed: Registration) -> None:
    for problem in placed.problems:
        if problem.reason is ProblemReason.NO_LOCAL_APP and placed.local_app is None:
            text = f"the registration of {placed.proxy_id!r}: {problem.detail}; or give -service-addr"
            raise Exit(ExitCode.CONFIGURATION, text)
