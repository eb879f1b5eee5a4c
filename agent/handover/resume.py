"""Serves from the state of the last run while Consul does not answer, and says so until it has answered.

Consul has `PATIENCE` seconds. Then whatever is still missing comes from the state, and each value is replaced
as soon as Consul answers for it. A state that becomes too old before that ends the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from agent.base.clock import Clock
from agent.base.exits import Exit, ExitCode
from agent.base.freshness import Confirmation
from agent.base.watch_status import WatchStatus
from agent.control.plane import ControlPlane
from agent.handover.memory import Memory
from agent.handover.sealed_file import SealedFile
from agent.handover.state import State, StateUnusable, check_age, decode, proven
from certs.bundle import TrustBundle
from certs.leaf import Leaf

PATIENCE = 2.0  # seconds that Consul has to answer
LOOK_SECONDS = 1.0


class ResumeEvents(Protocol):
    """The events of a resumed state; must not block."""

    def state_resumed(self, values: str, at: datetime) -> None: ...
    def state_confirmed(self) -> None: ...
    def state_unusable(self, reason: str, detail: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Resume:
    """The state of the last run, if there is one, and what of it is in force; dropped once nothing is."""

    control: ControlPlane
    events: ResumeEvents
    clock: Clock
    on_refused: Callable[[], None] = lambda: None  # called when there is nothing to serve from
    state: State | None = None
    unusable: str = ""  # why there is none, where there was one
    unkept: str = ""  # why this run's state is not kept for the next one
    watching: trio.Event = field(default_factory=trio.Event)  # the watches of our service have begun
    _in_force: list[tuple[str, WatchStatus]] = field(default_factory=list)
    _pair: tuple[Leaf, TrustBundle] | None = None

    def read(self, memory: Memory, file: SealedFile | None) -> None:
        """Take the newest state that may be used, of the service manager's memory and the file."""
        for text in memory.states():
            self._consider(partial(_same, text))
        if file is not None:
            self._consider(file.read)

    def _consider(self, read: Callable[[], bytes | None]) -> None:
        try:
            encoded = read()
            if encoded is not None:
                self._offer(decode(encoded))
        except StateUnusable as error:
            self._refuse(error)

    def _offer(self, state: State) -> None:
        """Take a state if it is newer than what there is. Raises StateUnusable."""
        if self.state is None or self.state.at < state.at:
            self._pair = proven(state, self.control.settings, self.clock())
            self.state = state

    def _refuse(self, error: StateUnusable) -> None:
        self.unusable = str(error)
        self.events.state_unusable(error.reason.value, error.detail)

    async def run(self) -> None:
        """Serve from the state where Consul is silent. Raises Exit when it becomes too old meanwhile."""
        await trio.sleep(PATIENCE)
        if self.state is None:
            if self.control.snapshot.registration.value is None:
                self.on_refused()
            return
        self._resume_registration(self.state)
        await self.watching.wait()
        self._resume_values(self.state)
        if not self._in_force:
            self.state = self._pair = None
            return
        self.events.state_resumed(", ".join(self.values()), self.state.at)
        while self.values():
            self._end_if_too_old(self.state)
            await trio.sleep(LOOK_SECONDS)
        self.state = self._pair = None
        self.events.state_confirmed()

    def values(self) -> list[str]:
        """Return which values in force Consul has not confirmed since the start."""
        self._in_force = [(name, status) for name, status in self._in_force if not status.answers]
        return list(dict.fromkeys(name for name, _ in self._in_force))

    @property
    def complaint(self) -> str:
        """What an operator must know; empty while every value is Consul's."""
        values = self.values()
        if values and self.state is not None:
            return f"degraded: from the last run, confirmed at {_time(self.state.at)}: {', '.join(values)}"
        known = self.control.snapshot.credentials.value is not None
        return self.unkept if known else self.unusable

    @property
    def age(self) -> float:
        """The age in seconds of what is in force of the state; 0 for nothing."""
        if self.state is None or not self.values():
            return 0.0
        return max(0.0, (self.clock() - self.state.at).total_seconds())

    def _resume_registration(self, state: State) -> None:
        control = self.control
        if control.snapshot.registration.value is None and state.registration is not None:
            control.take(state.registration)

    def _resume_values(self, state: State) -> None:
        """Take whatever Consul has not answered."""
        control, snapshot = self.control, self.control.snapshot
        self._note("registration", control.status_of("registration"))
        if snapshot.credentials.value is None and control.credentials is not None and self._pair is not None:
            control.credentials.resume(*self._pair)
            self._note("leaf", control.credentials.leaf_watch.status)
            self._note("roots", control.credentials.roots_watch.status)
        if snapshot.policy.value is None and state.intentions is not None:
            self._resume_intentions(state)
        if snapshot.source_intentions.value is None and state.source_intentions is not None:
            snapshot.source_intentions.publish(replace(state.source_intentions, audit=control.settings.audit))
            self._note("outgoing", control.status_of("outgoing"))
        control.endpoints.resume({(one.lookup, one.poll_interval): one.endpoints for one in state.endpoints})
        for source in control.endpoints.known().values():
            if source.endpoints.value is not None:
                self._note("endpoints", source.status)

    def _resume_intentions(self, state: State) -> None:
        control = self.control
        if state.confirmed is not None:
            age = (self.clock() - state.confirmed).total_seconds()
            control.snapshot.confirmed.publish(Confirmation(state.confirmed, trio.current_time() - age))
        control.intentions.resumed = state.intentions
        control.intentions.publish()
        self._note("intentions", control.status_of("intentions"))

    def _note(self, name: str, status: WatchStatus | None) -> None:
        if status is not None and not status.answers:
            self._in_force.append((name, status))

    def _end_if_too_old(self, state: State) -> None:
        try:
            check_age(state, self.control.settings.state_max_age, self.clock())
        except StateUnusable as error:
            raise Exit(ExitCode.UNAVAILABLE, f"Consul has not answered since the start: {error}") from error


def _same(text: bytes) -> bytes | None:
    return text


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
