"""Keeps the state of this run for the next one, as values change and Consul confirms them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import trio

from agent.base.watch_status import WatchStatus
from agent.config.settings import IdentityKind
from agent.control.plane import ControlPlane
from agent.handover.memory import Memory
from agent.handover.resume import Resume
from agent.handover.sealed_file import SealedFile
from agent.handover.state import KnownEndpoints, State, binding, encode
from agent.workers.messages import hand_on

LOOK_SECONDS = 1.0  # the interval at which changes are looked for
REFRESH = timedelta(
    minutes=1
)  # how much later Consul must have confirmed the values for them to be written again


@dataclass(slots=True, kw_only=True)
class StateKeeper:
    """Writes the state to memory that the service manager keeps, and to the encrypted file."""

    control: ControlPlane
    memory: Memory
    file: SealedFile | None
    resume: Resume
    _written: tuple[Sequence[int], datetime] | None = field(default=None)

    async def run(self) -> None:
        """Write the state whenever it has changed, until cancelled."""
        if not self.memory.active and self.file is None:
            return
        while True:
            await self.write_news()
            await trio.sleep(LOOK_SECONDS)

    async def write_news(self) -> None:
        """Write the state if there is one that is not written yet."""
        at = self._at()
        if at is None or self._is_written(at):
            return
        state = collect(self.control, at)
        if state is None:
            return
        self._written = self._versions(), at
        await self._write(state)

    def current(self) -> bytes | None:
        """Return the state of this moment; None if a value is missing."""
        at = self._at()
        state = None if at is None else collect(self.control, at)
        return None if state is None else encode(state)

    async def _write(self, state: State) -> None:
        text, self.resume.unkept = encode(state), ""
        try:
            self.memory.keep(text)
            if self.file is not None:
                domain = str(state.credentials.roots["TrustDomain"])
                await trio.to_thread.run_sync(self.file.write, text, state.credentials.service, domain)
        except OSError as error:
            self.resume.unkept = f"the state for the next run cannot be kept: {error.strerror or error}"

    def _is_written(self, at: datetime) -> bool:
        if self._written is None:
            return False
        versions, before = self._written
        return list(versions) == self._versions() and at - before < REFRESH

    def _versions(self) -> list[int]:
        snapshot = self.control.snapshot
        cells = snapshot.registration, snapshot.credentials, snapshot.policy, snapshot.source_intentions
        endpoints = [source.endpoints.version for source in self.control.endpoints.known().values()]
        return [*(cell.version for cell in cells), *endpoints]

    def _at(self) -> datetime | None:
        """Return when Consul last confirmed the value it confirmed longest ago; None before that."""
        moments = []
        for status in self._watches():
            at = status.answered_at or (None if self.resume.state is None else self.resume.state.at)
            if at is None:
                return None
            moments.append(at)
        return min(moments, default=None)

    def _watches(self) -> Iterator[WatchStatus]:
        control = self.control
        if control.credentials is not None:
            yield control.credentials.leaf_watch.status
            yield control.credentials.roots_watch.status
        for name in ("registration", "intentions"):
            status = control.status_of(name)
            if status is not None:
                yield status


def collect(control: ControlPlane, at: datetime) -> State | None:
    """Return the newest values; None while one that a data plane needs is missing, or is of no use."""
    snapshot, settings = control.snapshot, control.settings
    registration, contexts = snapshot.registration.value, snapshot.credentials.value
    policy, confirmed = snapshot.policy.value, snapshot.confirmed.value
    if registration is None or contexts is None or contexts.credentials.unfit:
        return None
    if registration.accepts_callers and policy is None:
        return None
    known = control.endpoints.known().items()
    return State(
        bound_to=binding(settings),
        at=at,
        registration=None if settings.identity is IdentityKind.SERVICE else control.registered,
        credentials=hand_on(contexts, registration.service, registration.datacenter, at),
        intentions=None if policy is None else policy.intentions,
        confirmed=None if confirmed is None else confirmed.at,
        source_intentions=snapshot.source_intentions.value,
        endpoints=tuple(
            KnownEndpoints(lookup=lookup, poll_interval=interval, endpoints=source.endpoints.value)
            for (lookup, interval), source in known
            if source.endpoints.value is not None
        ),
    )
