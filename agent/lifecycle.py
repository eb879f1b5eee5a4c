"""Runs one agent from start through serving to drain: the only module above both planes and `observe`.

    watches ⊃ the data plane: relay ⊃ connections ⊃ listeners

is how the nurseries are nested and, from the inside out, the order of the end: /ready says no, and Consul
sends no more callers; some seconds later none from the mesh are accepted; connections get their drain time,
while credentials and intentions stay live and our app may still call upstreams; the data plane ends; the
watches end.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from agent.base.containment import Kept, Where, contained
from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.config.load import Reload, reload
from agent.config.registration import Registration
from agent.config.settings import Resolution
from agent.control.bootstrap import hurry
from agent.control.self_registration import (
    GOODBYE_SECONDS,
    Presence,
    leave_seconds,
    presence,
)
from agent.handover.keep import StateKeeper
from agent.handover.succession import Succession, outlasted
from agent.net.bind import BindFailed
from agent.net.kept import KeptSockets
from agent.observe.admin_listeners import AdminListeners
from agent.observe.agent import Agent
from agent.observe.announcement import Announcement
from agent.observe.readiness import failure, missing
from agent.page.routes import every_route
from agent.process.memory import give_back
from agent.process.systemd import Notifier

# SIGUSR1 is a restart (RestartKillSignal=), where the next process takes the listeners over; SIGUSR2 is an
# upgrade, and so is SIGHUP once another program is installed.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PARTLY_SECONDS = 60.0  # that READY=1 waits for an address where `start_timeout` is without a limit
LOOK_SECONDS = 1.0  # the interval of readiness checks, for the log and the service manager
LAST_SECONDS = (
    2.0  # of the drain of a process that is replaced: callers wait so long at most for the next one
)
END_SECONDS = 20.0  # after the drain, for whatever is cut and for the workers to be gone


@dataclass(slots=True, kw_only=True)
class Lifecycle:
    """Runs the planes of one agent from start to end."""

    agent: Agent
    notifier: Notifier
    read: Callable[[], Resolution | None] = lambda: None  # the settings, anew
    kept: KeptSockets = field(default_factory=KeptSockets)
    state: StateKeeper | None = None  # what it leaves to the next run, and what it has of the last one
    succession: Succession = field(default_factory=lambda: Succession(notifier=Notifier()))
    on_ready: Callable[[], None] = lambda: None
    on_end: Callable[[], None] = lambda: None  # all that still runs is cancelled
    waited: float = 0.0  # seconds of `start_timeout` that files have taken (agent.awaited)
    _admin: AdminListeners = field(init=False)
    _announcement: Announcement = field(init=False)
    _began: float = field(init=False)  # of the start, by trio's clock
    _serve_admin: Callable[[], None] = field(init=False)
    _serving: trio.Nursery = field(init=False)  # until the drain begins
    _drain: trio.Event = field(default_factory=trio.Event)
    _hurry: trio.Event = field(default_factory=trio.Event)
    _why: str = ""
    _replaced: bool = False  # the next process of the service takes the listeners over

    async def run(self) -> ExitCode:
        """Run to the end; return the exit code. Raises Exit, within groups, if the agent cannot start."""
        agent = self.agent
        self._admin = admin = AdminListeners(agent, self.kept)
        self._announcement = Announcement(agent, self.notifier)
        agent.began = self._began = trio.current_time()
        async with trio.open_nursery() as watches:
            watches.start_soon(_until_cancelled, self.on_end)
            kept = Kept(watches, agent.log)
            kept.begin(Where.TASK, "log", agent.log.keep_up)
            try:
                await admin.bind()
                agent.data.reserve(agent.control.admin_at)  # before a worker receives our addresses
                async with agent.data.running():
                    self._serve_admin = partial(admin.serve, kept, every_route(agent, self.drain, kept))
                    if self.succession.predecessor is None:  # which answers until we take over
                        self._serve_admin()
                    agent.control.start(watches)
                    watches.start_soon(self._hear_signals)
                    feed = partial(self.notifier.feed_watchdog, partial(failure, agent), agent.log.silent)
                    kept.begin(Where.TASK, "watchdog", feed)
                    kept.begin(Where.TASK, "readiness", self._observe)
                    if self.state is not None:
                        watches.start_soon(self.state.resume.run)
                    code = await self._live()
            finally:
                admin.close()
                self.kept.close()
            watches.cancel_scope.cancel()
        return code

    def drain(self, why: str, *, replaced: bool = False) -> None:
        """Begin the drain; a second call ends the agent at once.

        `replaced`: another process of the service is started when this one has ended.
        """
        if self._drain.is_set():
            self._hurry.set()
            return
        self._why, self._replaced = why, replaced and self.kept.active
        self.agent.control.phase = Phase.DRAINING
        self._drain.set()

    def reload(self) -> None:
        """Read the settings anew, and go on by them if all of them can be read; else by the old ones."""
        phase, resolution = self.agent.control.phase, self.read()
        if resolution is None or phase is Phase.DRAINING:
            return
        self._announcement.reloading()
        try:
            if resolution.settings is None:
                self._refuse([str(mistake) for mistake in resolution.mistakes])
            else:
                self._take(reload(self.agent.control.settings, resolution.settings))
        finally:
            self._announcement.reloaded()

    def upgrade(self) -> None:
        """Start the program that is installed now, and hand the service over to it; after a start."""
        phase = self.agent.control.phase
        if self.succession.postpone(phase):
            return
        if refusal := self.succession.refusal(phase):
            self.agent.log.upgrade_failed(refusal)
        else:
            self._serving.start_soon(contained, self.agent.log, Where.TASK, "upgrade", self._upgrade)

    async def _upgrade(self) -> None:
        self._announcement.reloading()
        self.agent.complaint = await self.succession.hand_over()
        if self.succession.successor is None:
            self._announcement.reloaded()
        else:
            self._admin.leave()
            self.drain("upgrade", replaced=True)

    def _refuse(self, mistakes: Sequence[str]) -> None:
        self.agent.complaint = f"the settings are wrong, and the old ones in force: {'; '.join(mistakes)}"
        self.agent.log.reload_refused(mistakes)

    def _take(self, reloaded: Reload) -> None:
        agent, waiting = self.agent, ", ".join(reloaded.waiting)
        agent.complaint = f"settings that wait for a restart: {waiting}" if waiting else ""
        agent.log.reloaded(reloaded.changed, reloaded.waiting)
        if "log_level" in reloaded.changed:
            agent.log.take_level(reloaded.settings.log_level)
            agent.data.take_level(reloaded.settings.log_level)
        agent.control.take_settings(reloaded.settings)

    # --- start ---

    async def _live(self) -> ExitCode:
        try:
            registration = await self._start_in_time()
        finally:
            if self.agent.control.phase is not Phase.SERVING:
                self.agent.data.release()
        if registration is None:
            return ExitCode.CLEAN  # the drain came before the agent served
        await self._serve(registration)
        return await self._end(registration)

    async def _start_in_time(self) -> Registration | None:
        """Start within `start_timeout`; return the registration in force, None if drained meanwhile.

        Raises Exit.
        """
        registration: Registration | None = None
        self._began = trio.current_time()
        seconds = self.agent.control.settings.start_timeout or math.inf
        with trio.move_on_after(max(0.0, seconds - self.waited)) as in_time:
            async with trio.open_nursery() as starting:
                starting.start_soon(_cancel_on, self._drain, starting)
                starting.start_soon(hurry, self.agent.control.watches)
                registration = await self._start()
                starting.cancel_scope.cancel()
        if in_time.cancelled_caught:
            pieces = "; ".join(missing(self.agent))
            files = f", of which files took {self.waited:.1f} s" if self.waited else ""
            raise Exit(ExitCode.UNAVAILABLE, f"not able to serve within {seconds:g} s{files}: {pieces}")
        if registration is not None and not self._drain.is_set():
            self._now_serving()
        return registration

    async def _start(self) -> Registration:
        control, data = self.agent.control, self.agent.data
        registration = await self._identified()
        try:
            await data.bind(registration)
            control.watch(registration)
            if self.state is not None:
                self.state.resume.watching.set()
            await control.snapshot.credentials.first()
            if registration.accepts_callers:
                await control.snapshot.policy.first()
            await data.open()
            await self.succession.take_over()
        except BindFailed as error:
            raise Exit(error.code, str(error)) from error
        return registration

    async def _identified(self) -> Registration:
        """Return the registration: Consul's, or that of the last run if Consul does not answer."""
        async with trio.open_nursery() as asking:
            asking.start_soon(self.agent.control.identify)
            registration = await self.agent.control.snapshot.registration.first()
            asking.cancel_scope.cancel()
        return registration

    def _now_serving(self) -> None:
        self.agent.control.phase = Phase.SERVING
        if self.succession.predecessor is not None:
            self._serve_admin()
        self._announce()
        self.kept.forget_rest()
        self.on_ready()

    # --- serve ---

    async def _serve(self, registration: Registration) -> None:
        own = self._presence(registration)
        async with trio.open_nursery() as serving:
            self._serving = serving
            kept = Kept(serving, self.agent.log)
            kept.begin(Where.TASK, "data plane", self.agent.data.follow)
            kept.begin(Where.TASK, "memory", give_back, self.agent.data.live)
            if self.state is not None:
                kept.begin(Where.TASK, "state for the next run", self.state.run)
            if own is not None:
                kept.begin(Where.TASK, "our presence in Consul", own.keep)
            if self.succession.postponed:
                self.upgrade()
            await self._drain.wait()
            serving.cancel_scope.cancel()

    def _presence(self, registration: Registration) -> Presence | None:
        agent, control = self.agent, self.agent.control
        return presence(control.settings, control.consul, registration, lambda: missing(agent), agent.log)

    async def _observe(self) -> None:
        """Report readiness to the service manager and, once the agent serves, to the log.

        Until the drain.
        """
        while self.agent.control.phase is not Phase.DRAINING:
            self._announce()
            await trio.sleep(LOOK_SECONDS)

    def _announce(self) -> None:
        self._announcement.look(trio.current_time() - self._began, self._limit())

    def _limit(self) -> float:
        """Return for how long a start may go on without READY=1, in seconds."""
        if self.succession.predecessor is not None:
            return 0.0  # the service manager waits for the end of the upgrade, which was a start once
        return (self.agent.control.settings.start_timeout or PARTLY_SECONDS) - self.waited

    async def _hear_signals(self) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                if number == signal.SIGUSR2 or (number == signal.SIGHUP and self.succession.due):
                    self.upgrade()
                elif number == signal.SIGHUP:
                    self.reload()
                else:
                    self.drain(signal.Signals(number).name, replaced=number == signal.SIGUSR1)

    # --- end ---

    async def _end(self, registration: Registration) -> ExitCode:
        agent, seconds = self.agent, self.agent.control.settings.drain_seconds
        if self.succession.successor is not None:
            agent.log.draining(self._why, agent.data.live(), None)
            agent.log.drained(await self.succession.finish(agent.data, self._hurry))
            return ExitCode.CLEAN
        self.notifier.stopping(GOODBYE_SECONDS + self._leave_seconds() + seconds + END_SECONDS)
        if not self._replaced:
            async with trio.open_nursery() as leaving:
                leaving.start_soon(_cancel_on, self._hurry, leaving)
                await contained(agent.log, Where.TASK, "our presence in Consul", self._leave, registration)
                leaving.cancel_scope.cancel()
        agent.log.draining(self._why, agent.data.live(), seconds)
        await self.succession.limit(seconds)
        until = trio.current_time() + seconds
        await (self._outlast(seconds) if self._replaced else agent.data.close_public())
        cut = await agent.data.drain(max(0.0, until - trio.current_time()), self._hurry)
        agent.log.drained(cut)
        await self.succession.outlive(max(0.0, until - trio.current_time()))
        return ExitCode.FAILED if cut else ExitCode.CLEAN

    async def _outlast(self, seconds: float) -> None:
        """Serve who comes while connections from before end; then callers wait for the next process."""
        data = self.agent.data
        data.hand_over()
        await outlasted(data, max(0.0, seconds - LAST_SECONDS), self._hurry)
        await data.close_listeners()

    async def _leave(self, registration: Registration) -> None:
        """Have Consul send no more callers, and accept those who come until that is known to all."""
        agent, own, seconds = self.agent, self._presence(registration), self._leave_seconds()
        if not (seconds or agent.control.settings.register):
            return
        if own is None:
            agent.log.maintenance_failed("-service without -register has no proxy in Consul")
        elif await own.leave() and seconds:
            agent.log.leaving(self._why, seconds)
            await trio.sleep(seconds)

    def _leave_seconds(self) -> float:
        control = self.agent.control
        return leave_seconds(control.settings.leave_seconds, control.public_at)


async def _cancel_on(event: trio.Event, nursery: trio.Nursery) -> None:
    await event.wait()
    nursery.cancel_scope.cancel()


async def _until_cancelled(then: Callable[[], None]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        then()
