"""The processes that serve connections: begun, watched, and replaced when they die.

A worker is a fresh interpreter, not a fork. One that dies takes its own connections along and nothing else;
it is replaced at once, later and later if it keeps dying. One that does not answer is killed. One that loses
the control process lets its connections finish, and ends.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from agent import VERSION
from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Kept, Where
from agent.base.prometheus import Family, counter, gauge
from agent.config.settings import Settings
from agent.net.listeners import ListenerKey
from agent.workers.link import WorkerEnd, WorkerLink
from agent.workers.messages import Finish, Welcome, without_secrets
from agent.workers.process import Spawn, reap
from agent.workers.publisher import Publisher, Subscriber
from agent.workers.reports import AskedAgain, GatewaysWanted, Reported, retired

STEADY_SECONDS = 10.0  # a worker that has served so long did not die of its beginning
FLOOR_SECONDS, CEILING_SECONDS = 0.5, 30.0  # before one that keeps dying is begun again
LOOK_SECONDS = 0.05  # how often a start looks whether a worker serves
END_SECONDS = 7.0  # for a worker to cut what lives and to be gone


class WorkerEvents(FaultEvents, Protocol):
    """Who hears how workers fare; must not block."""

    def worker_serving(self, worker: int, pid: int) -> None: ...
    def worker_ended(self, worker: int, reason: str, detail: str, lost: int, pause: float) -> None: ...


class WorkerSockets(Protocol):
    """Who has the listening sockets of each worker."""

    def sockets(self, slot: int, key: ListenerKey, /) -> Sequence[socket.socket]:
        """Those of one worker for one listener."""

    def give_up(self, slot: int, /) -> None:
        """No worker will come there soon."""


@dataclass(slots=True)
class _Slot:
    """The place of one worker."""

    number: int
    link: WorkerLink | None = None
    deaths: Counter[WorkerEnd] = field(default_factory=Counter)
    failures: int = 0  # in a row, without serving for long
    last_end: str = ""

    @property
    def serving(self) -> WorkerLink | None:
        return self.link if self.link is not None and self.link.serving else None


class Supervisor:
    """Keeps `settings.workers` workers alive. `ended` is what the dead ones had counted."""

    def __init__(
        self,
        *,
        settings: Settings,
        spawn: Spawn,
        board: Publisher,
        sockets: WorkerSockets,
        heard: Callable[[AskedAgain | GatewaysWanted], None],
        events: WorkerEvents,
        clock: Clock,
    ) -> None:
        self.ended: Reported | None = None
        self._settings = settings
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._spawn = spawn
        self._board = board
        self._sockets = sockets
        self._heard = heard
        self._events = events
        self._clock = clock
        self._closing = False

    def start(self, nursery: trio.Nursery) -> None:
        """Begin every worker."""
        kept = Kept(nursery, self._events)
        for slot in self._slots:
            kept.begin(Where.WORKER, f"worker {slot.number}", self._keep, slot)

    async def ready(self) -> None:
        """Wait until every worker has carried out what was said so far."""
        for slot in self._slots:
            while True:
                link = slot.serving
                if link is not None and await link.report() is not None:
                    break
                await trio.sleep(LOOK_SECONDS)

    def live(self) -> int:
        """Their connections, as of the last reports."""
        return sum(slot.link.last.live for slot in self._slots if slot.link and slot.link.last)

    def problems(self) -> list[str]:
        """What keeps them from serving."""
        if any(slot.serving for slot in self._slots):
            return []
        ends = "; ".join(dict.fromkeys(slot.last_end for slot in self._slots if slot.last_end))
        return [f"workers: none of {len(self._slots)} serves{f', the last one {ends}' if ends else ' yet'}"]

    def warnings(self) -> list[str]:
        """Which of them are down."""
        down = [slot for slot in self._slots if not slot.serving and slot.last_end]
        return [f"worker {slot.number} is down: {slot.last_end}" for slot in down]

    def families(self, reports: Mapping[int, Reported]) -> list[Family]:
        """Metrics of the workers as processes."""
        deaths = counter("sidecar_worker_deaths_total", "Workers that ended unasked, by how.")
        for death in WorkerEnd:
            deaths.add(sum(slot.deaths[death] for slot in self._slots), reason=death.value)
        serving = sum(slot.serving is not None for slot in self._slots)
        resident = gauge("sidecar_worker_resident_memory_bytes", "Resident memory of each worker.")
        live = gauge("sidecar_worker_connections", "Live connections of each worker.")
        lost = counter("sidecar_worker_log_lines_lost_total", "Log lines a worker could tell nobody.")
        for number, told in reports.items():
            resident.add(told.resident_bytes, worker=str(number))
            live.add(told.live, worker=str(number))
            lost.add(told.counters.get("log_lines_lost", 0), worker=str(number))
        return [
            gauge("sidecar_workers", "Processes that are to serve connections.").add(len(self._slots)),
            gauge("sidecar_workers_serving", "Those that do.").add(serving),
            deaths,
            resident,
            live,
            lost,
        ]

    def rows(self, reports: Mapping[int, Reported]) -> list[dict[str, Any]]:
        """The rows of the workers in `/status`."""
        return [_row(slot, reports.get(slot.number)) for slot in self._slots]

    async def reports(self, *, rows: bool) -> dict[int, Reported]:
        """The reports of those that serve and answer, by worker."""
        found: dict[int, Reported] = {}

        async def ask(number: int, link: WorkerLink) -> None:
            told = await link.report(rows=rows)
            if told is not None:
                found[number] = told

        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                if slot.serving is not None:
                    nursery.start_soon(ask, slot.number, slot.serving)
        return dict(sorted(found.items()))

    async def finish(self) -> int:
        """End them; return how many connections were cut."""
        self._closing = True
        links = [slot.link for slot in self._slots if slot.link is not None]
        with trio.move_on_after(END_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in links:
                    nursery.start_soon(link.finish, Finish())
        return sum(link.cut for link in links)

    # --- one place ---

    async def _keep(self, slot: _Slot) -> None:
        """Somebody serves there, for as long as anybody shall."""
        while True:
            began = trio.current_time()
            death, detail = await self._live(slot)
            if self._closing:
                return
            steady = trio.current_time() - began >= STEADY_SECONDS
            slot.failures = 1 if steady else slot.failures + 1
            slot.deaths[death] += 1
            slot.last_end = f"{death.value}: {detail}"
            pause = _pause(slot.failures)
            lost = 0 if slot.link is None or slot.link.last is None else slot.link.last.live
            self._events.worker_ended(slot.number, death.value, detail, lost, pause)
            slot.link = None
            if pause:
                self._sockets.give_up(slot.number)
                await trio.sleep(pause)

    async def _live(self, slot: _Slot) -> tuple[WorkerEnd, str]:
        """One worker from its beginning to its end, and how that came."""
        ours, theirs = socket.socketpair()
        try:
            process = await self._spawn(theirs)
        except OSError as error:
            ours.close()
            return WorkerEnd.NOT_STARTED, str(error)
        finally:
            theirs.close()
        link = slot.link = WorkerLink(
            ours,
            Subscriber(self._board),
            pid=process.pid,
            since=self._clock(),
            sockets=partial(self._sockets.sockets, slot.number),
            heard=self._heard,
            on_serving=partial(self._events.worker_serving, slot.number, process.pid),
            faults=self._events,
        )
        welcome = Welcome(
            version=VERSION,
            slot=slot.number,
            workers=len(self._slots),
            settings=without_secrets(self._settings),
        )
        try:
            death, detail = await link.run(welcome)
        finally:
            code = await reap(process, patient=self._closing)
            if link.last is not None:
                self.ended = retired(self.ended, link.last)
        if death is WorkerEnd.EXITED:
            return (WorkerEnd.KILLED, f"by signal {-code}") if code < 0 else (death, f"with code {code}")
        return death, detail


def _pause(failures: int) -> float:
    """Seconds before a worker is begun again: none the first time, then doubling."""
    if failures <= 1:
        return 0.0
    return min(CEILING_SECONDS, FLOOR_SECONDS * 2.0 ** min(failures - 2, 16))


def _row(slot: _Slot, told: Reported | None) -> dict[str, Any]:
    link = slot.link
    return {
        "worker": slot.number,
        "serving": slot.serving is not None,
        "pid": None if link is None else link.pid,
        "since": None if link is None else link.since.isoformat(timespec="milliseconds"),
        "connections": None if told is None else told.live,
        "resident_bytes": None if told is None else told.resident_bytes,
        "deaths": {death.value: count for death, count in slot.deaths.items()},
        "last_end": slot.last_end or None,
    }
