"""Starts worker processes, watches them, and replaces the ones that die.

A worker is a fresh interpreter, not a fork. A dying worker ends its own connections and no others. It is
replaced at once, and after growing pauses if it keeps dying. A worker that does not answer is killed. A
worker that loses the control process lets its connections finish, and ends.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import trio

from agent import VERSION
from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Kept, Where
from agent.base.prometheus import Family, counter, gauge
from agent.config.settings import Settings
from agent.net.listeners import ListenerKey
from agent.workers.link import WorkerEnd, WorkerLink
from agent.workers.messages import Finish, Welcome, without_secrets
from agent.workers.process import Spawn, reap
from agent.workers.publisher import Publisher, Subscriber
from agent.workers.reports import Reported, WorkerRequest, retired

STEADY_SECONDS = 10.0  # a worker that lived this long resets the pause
FLOOR_SECONDS, CEILING_SECONDS = 0.5, 30.0  # the pause before a worker that keeps dying is started again
LOOK_SECONDS = 0.05  # the interval at which a start checks whether a worker serves
END_SECONDS = 7.0  # for a worker to close its connections and end


class WorkerEvents(FaultEvents, Protocol):
    """The events of workers; must not block."""

    def worker_serving(self, worker: int, pid: int) -> None: ...
    def worker_ended(self, worker: int, reason: str, detail: str, lost: int, pause: float) -> None: ...


class WorkerSockets(Protocol):
    """The listening sockets of each worker."""

    def sockets(self, slot: int, key: ListenerKey, /) -> Sequence[socket.socket]:
        """Return the sockets of one worker for one listener."""

    def give_up(self, slot: int, /) -> None:
        """Close the sockets of a slot whose worker will not start soon."""


@dataclass(slots=True)
class _Slot:
    """One worker's slot, and the process in it."""

    number: int
    link: WorkerLink | None = None
    deaths: Counter[WorkerEnd] = field(default_factory=Counter)
    failures: int = 0  # deaths in a row, each before STEADY_SECONDS
    last_end: str = ""

    @property
    def serving(self) -> WorkerLink | None:
        return self.link if self.link is not None and self.link.serving else None


class Supervisor:
    """Keeps `settings.workers` workers alive. `ended` holds the counters of the dead ones."""

    def __init__(
        self,
        *,
        settings: Settings,
        spawn: Spawn,
        publisher: Publisher,
        sockets: WorkerSockets,
        on_request: Callable[[WorkerRequest], None],
        events: WorkerEvents,
        clock: Clock,
        beat: str = "",
    ) -> None:
        self._beat = beat
        self.ended: Reported | None = None
        self._settings = settings
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._spawn = spawn
        self._publisher = publisher
        self._sockets = sockets
        self._on_request = on_request
        self._events = events
        self._clock = clock
        self._closing = False

    def start(self, nursery: trio.Nursery) -> None:
        """Start every worker."""
        kept = Kept(nursery, self._events)
        for slot in self._slots:
            kept.begin(Where.WORKER, f"worker {slot.number}", self._keep, slot)

    def reserve(self, admin: Sequence[Address]) -> None:
        """Let workers that begin from now on know where the admin endpoint is, as bound."""
        self._settings = replace(self._settings, admin_bind=tuple(admin))

    async def ready(self) -> None:
        """Wait until every worker has applied all messages so far."""
        for slot in self._slots:
            while True:
                link = slot.serving
                if link is not None and await link.report() is not None:
                    break
                await trio.sleep(LOOK_SECONDS)

    def live(self) -> int:
        """Return the number of the workers' connections, by their last reports."""
        return sum(slot.link.last.live for slot in self._slots if slot.link and slot.link.last)

    def problems(self) -> list[str]:
        """Return what keeps the workers from serving; empty while one of them serves."""
        if any(slot.serving for slot in self._slots):
            return []
        ends = "; ".join(dict.fromkeys(slot.last_end for slot in self._slots if slot.last_end))
        return [f"workers: none of {len(self._slots)} serves{f', the last one {ends}' if ends else ' yet'}"]

    def warnings(self) -> list[str]:
        """Return which workers are down, and which calls fail by the last reports."""
        down = [slot for slot in self._slots if not slot.serving and slot.last_end]
        last = [slot.link.last for slot in self._slots if slot.link and slot.link.last]
        failing = dict.fromkeys(text for report in last for text in report.failing)
        return [*(f"worker {slot.number} is down: {slot.last_end}" for slot in down), *failing]

    def families(self, reports: Mapping[int, Reported]) -> list[Family]:
        """Return the metrics of the worker processes."""
        deaths = counter("sidecar_worker_deaths_total", "Workers that died, by how they ended.")
        for end in WorkerEnd:
            deaths.add(sum(slot.deaths[end] for slot in self._slots), reason=end.value)
        serving = sum(slot.serving is not None for slot in self._slots)
        resident = gauge("sidecar_worker_resident_memory_bytes", "Resident memory of each worker.")
        live = gauge("sidecar_worker_connections", "Live connections of each worker.")
        lost = counter("sidecar_worker_log_lines_lost_total", "Log lines a worker has lost.")
        for number, report in reports.items():
            resident.add(report.resident_bytes, worker=str(number))
            live.add(report.live, worker=str(number))
            lost.add(report.counters.get("log_lines_lost", 0), worker=str(number))
        return [
            gauge("sidecar_workers", "Workers that the setting asks for.").add(len(self._slots)),
            gauge("sidecar_workers_serving", "Workers that serve connections now.").add(serving),
            deaths,
            resident,
            live,
            lost,
        ]

    def rows(self, reports: Mapping[int, Reported]) -> list[dict[str, Any]]:
        """Return the rows of the workers for `/status`."""
        return [_row(slot, reports.get(slot.number)) for slot in self._slots]

    async def busy(self) -> bool:
        """Return whether a worker has a connection, or may have one since it has not answered in time."""
        reports = await self.reports(rows=False)
        return self.unheard(reports) or any(report.live for report in reports.values())

    def unheard(self, reports: Mapping[int, Reported]) -> bool:
        """Return whether one that serves is not among those reports; one that has ended is not missed."""
        return any(slot.serving is not None and slot.number not in reports for slot in self._slots)

    async def reports(self, *, rows: bool) -> dict[int, Reported]:
        """Return the reports of the workers that serve and answer, by number."""
        found: dict[int, Reported] = {}

        async def ask(number: int, link: WorkerLink) -> None:
            report = await link.report(rows=rows)
            if report is not None:
                found[number] = report

        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                if slot.serving is not None:
                    nursery.start_soon(ask, slot.number, slot.serving)
        return dict(sorted(found.items()))

    async def finish(self) -> int:
        """End all workers; return how many connections were cut."""
        self._closing = True
        links = [slot.link for slot in self._slots if slot.link is not None]
        with trio.move_on_after(END_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in links:
                    nursery.start_soon(link.finish, Finish())
        return sum(link.cut for link in links)

    # --- one slot ---

    async def _keep(self, slot: _Slot) -> None:
        """Run one worker after another in a slot, until the agent ends."""
        while True:
            began = trio.current_time()
            end, detail = await self._live(slot)
            if self._closing:
                return
            steady = trio.current_time() - began >= STEADY_SECONDS
            slot.failures = 1 if steady else slot.failures + 1
            slot.deaths[end] += 1
            slot.last_end = f"{end.value}: {detail}"
            pause = _pause(slot.failures)
            lost = 0 if slot.link is None or slot.link.last is None else slot.link.last.live
            self._events.worker_ended(slot.number, end.value, detail, lost, pause)
            slot.link = None
            if pause:
                self._sockets.give_up(slot.number)
                await trio.sleep(pause)

    async def _live(self, slot: _Slot) -> tuple[WorkerEnd, str]:
        """Run one worker from its start to its end; return how it ended, and a detail."""
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
            Subscriber(self._publisher),
            pid=process.pid,
            since=self._clock(),
            sockets=partial(self._sockets.sockets, slot.number),
            on_request=self._on_request,
            on_serving=partial(self._events.worker_serving, slot.number, process.pid),
            faults=self._events,
        )
        welcome = Welcome(
            version=VERSION,
            slot=slot.number,
            workers=len(self._slots),
            settings=without_secrets(self._settings),
            beat=self._beat,
        )
        try:
            end, detail = await link.run(welcome)
        finally:
            code = await reap(process, patient=self._closing)
            if link.last is not None:
                self.ended = retired(self.ended, link.last)
        if end is WorkerEnd.EXITED:
            return (WorkerEnd.KILLED, f"by signal {-code}") if code < 0 else (end, f"with code {code}")
        return end, detail


def _pause(failures: int) -> float:
    """Return the seconds before a restart: none after the first death, then doubling."""
    if failures <= 1:
        return 0.0
    return min(CEILING_SECONDS, FLOOR_SECONDS * 2.0 ** min(failures - 2, 16))


def _row(slot: _Slot, report: Reported | None) -> dict[str, Any]:
    link = slot.link
    return {
        "worker": slot.number,
        "serving": slot.serving is not None,
        "pid": None if link is None else link.pid,
        "since": None if link is None else link.since.isoformat(timespec="milliseconds"),
        "connections": None if report is None else report.live,
        "resident_bytes": None if report is None else report.resident_bytes,
        "deaths": {end.value: count for end, count in slot.deaths.items()},
        "last_end": slot.last_end or None,
    }
