"""More than one core: the processes that serve connections, begun, watched and replaced by this one.

    control process: watches, admin endpoint, the service manager
       │  a socket pair each; the newest values go down, reports come up
       ├── worker 0: listeners, handshakes, verdicts, relay
       └── worker 1: …

A worker is a fresh interpreter, not a fork. One that dies takes its own connections along and nothing else;
it is replaced at once, later and later if it keeps dying. One that does not answer is killed. One that loses
this process lets its connections finish, and ends.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from agent import VERSION
from agent.base.latest import Latest
from agent.base.prometheus import Family, counter, gauge
from agent.config.options import LogLevel
from agent.consul.watch import WatchStatus
from agent.net.bind import BindFailed
from agent.net.listeners import ListenerKey, Listeners
from agent.outbound.upstream_state import Source
from agent.parts import Parts
from agent.workers.link import Death, Link
from agent.workers.listeners import SharedListeners
from agent.workers.messages import (
    Finish,
    HandedCredentials,
    HandedEndpoints,
    Unwatched,
    Verbosity,
    Welcome,
    hand_on,
    without_secrets,
)
from agent.workers.process import Spawn, reap
from agent.workers.publisher import Board, Rank, Reader
from agent.workers.reports import AskedAgain, GatewaysWanted, Reported, added_up, buried, merged
from certs.contexts import Contexts
from upstreams.spec import Gateways, Lookup

STEADY_SECONDS = 10.0  # a worker that has served so long did not die of its beginning
FLOOR_SECONDS, CEILING_SECONDS = 0.5, 30.0  # before one that keeps dying is begun again
LOOK_SECONDS = 0.05  # how often a drain looks for the last connection
END_SECONDS = 7.0  # for a worker to cut what lives and to be gone


@dataclass(slots=True)
class _Slot:
    """The place of one worker, whoever holds it."""

    number: int
    link: Link | None = None
    deaths: Counter[Death] = field(default_factory=Counter)
    failures: int = 0  # in a row, without serving for long
    last_end: str = ""

    @property
    def serving(self) -> Link | None:
        return self.link if self.link is not None and self.link.serving else None


class Workers:
    """All of them (agent.crew.Crew)."""

    def __init__(self, parts: Parts, count: int, spawn: Spawn) -> None:
        self._parts = parts
        self._slots = [_Slot(number) for number in range(count)]
        self._spawn = spawn
        self._ended: Reported | None = None
        self._closing = False
        self._numbers = 0
        self._level = Latest(parts.journal.level)
        self._sources: dict[int, tuple[Source, Callable[[], None]]] = {}

    # --- agent.crew.Crew ---

    def start(self, nursery: trio.Nursery, /) -> None:
        parts = self._parts
        self._board = board = Board(nursery)
        board.post("deny list", Rank.POLICY, parts.deny_file.latest, lambda value: value)
        board.post("log level", Rank.POLICY, self._level, lambda level: Verbosity(level=level))
        board.post("registration", Rank.REGISTRATION, parts.placement, lambda value: value)
        board.post("credentials", Rank.CREDENTIALS, parts.contexts, self._hand_on)
        board.post("intentions", Rank.INTENTIONS, parts.intentions, lambda value: value)
        board.post("outgoing", Rank.INTENTIONS, parts.outgoing, lambda value: value)
        for slot in self._slots:
            nursery.start_soon(self._keep, slot)

    def listeners(self, listeners: trio.Nursery, connections: trio.Nursery, /) -> Listeners:
        self._listeners = SharedListeners(listeners, connections, self._parts.journal, self._board)
        return self._listeners

    async def ready(self) -> None:
        for slot in self._slots:
            while True:
                link = slot.serving
                if link is not None and await link.report() is not None:
                    break
                await trio.sleep(LOOK_SECONDS)

    def take_level(self, level: LogLevel, /) -> None:
        self._level.publish(level)

    def live(self) -> int:
        return sum(slot.link.last.live for slot in self._slots if slot.link and slot.link.last)

    def missing(self) -> list[str]:
        if any(slot.serving for slot in self._slots):
            return []
        ends = "; ".join(dict.fromkeys(slot.last_end for slot in self._slots if slot.last_end))
        return [f"workers: none of {len(self._slots)} serves{f', the last one {ends}' if ends else ' yet'}"]

    def complaints(self) -> list[str]:
        down = [slot for slot in self._slots if not slot.serving and slot.last_end]
        return [f"worker {slot.number} is down: {slot.last_end}" for slot in down]

    async def families(self) -> list[Family]:
        reports = await self._reports(rows=False)
        deaths = counter("sidecar_worker_deaths_total", "Workers that ended unasked, by how.")
        for death in Death:
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
            *added_up(reports.values(), self._ended),
        ]

    async def laid_into(self, document: dict[str, Any]) -> dict[str, Any]:
        reports = await self._reports(rows=True)
        rows = [_row(slot, reports.get(slot.number)) for slot in self._slots]
        return {**merged(document, reports, self._ended), "workers": rows}

    async def share(self, lookup: Lookup, poll_interval: float | None, source: Source, /) -> None:
        self._numbers += 1
        number = self._numbers
        cell: Latest[HandedEndpoints] = Latest()

        def tell() -> None:
            failing = source.status.failing
            told = HandedEndpoints(
                number=number,
                lookup=lookup,
                poll_interval=poll_interval,
                polled=source.polled,
                endpoints=source.endpoints.value,
                failing="" if failing is None else str(failing),
            )
            if told != cell.value:
                cell.publish(told)

        self._sources[number] = source, tell
        name = (HandedEndpoints, number)
        withdrawal = Unwatched(number=number)
        self._board.post(name, Rank.ENDPOINTS, cell, lambda told: told, withdrawal=withdrawal)
        try:
            tell()
            version = source.endpoints.version
            while True:
                _, version = await source.endpoints.newer(version)
                tell()
        finally:
            del self._sources[number]
            self._board.withdraw(name)

    def watch_changed(self, status: WatchStatus, /) -> None:
        for source, tell in list(self._sources.values()):
            if source.status is status:
                tell()

    async def empty(self) -> None:
        while True:
            reports = await self._reports(rows=False)
            if not any(told.live for told in reports.values()):
                return
            await trio.sleep(LOOK_SECONDS)

    async def finish(self) -> int:
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
            self._parts.journal.worker_ended(slot.number, death.value, detail, lost, pause)
            slot.link = None
            if pause:
                self._give_up(slot)
                await trio.sleep(pause)

    async def _live(self, slot: _Slot) -> tuple[Death, str]:
        """One worker from its beginning to its end, and how that came."""
        ours, theirs = socket.socketpair()
        try:
            process = await self._spawn(theirs)
        except OSError as error:
            ours.close()
            return Death.NOT_STARTED, str(error)
        finally:
            theirs.close()
        parts = self._parts
        link = slot.link = Link(
            ours,
            Reader(self._board),
            pid=process.pid,
            since=parts.clock(),
            sockets=partial(self._sockets, slot.number),
            heard=self._heard,
            on_serving=partial(parts.journal.worker_serving, slot.number, process.pid),
        )
        welcome = Welcome(
            version=VERSION,
            slot=slot.number,
            workers=len(self._slots),
            settings=without_secrets(parts.settings),
        )
        try:
            death, detail = await link.run(welcome)
        finally:
            code = await reap(process, patient=self._closing)
            if link.last is not None:
                self._ended = buried(self._ended, link.last)
        if death is Death.EXITED:
            return (Death.KILLED, f"by signal {-code}") if code < 0 else (death, f"with code {code}")
        return death, detail

    def _sockets(self, slot: int, key: ListenerKey) -> list[socket.socket]:
        try:
            return self._listeners.sockets(key, slot)
        except BindFailed as error:  # the address is ours: only for want of descriptors
            self._parts.journal.listening_failed(f"worker {slot}", str(error))
            return []

    def _give_up(self, slot: _Slot) -> None:
        if self._parts.listeners is not None:
            self._listeners.give_up(slot.number)

    def _heard(self, word: AskedAgain | GatewaysWanted) -> None:
        if isinstance(word, AskedAgain):
            if word.number in self._sources:
                self._sources[word.number][0].ask_again()
        elif self._parts.feeds is not None:
            self._parts.feeds.source(Gateways(word.datacenter), None)

    def _hand_on(self, contexts: Contexts) -> HandedCredentials:
        parts = self._parts
        placed = parts.placement.value
        assert placed is not None  # credentials are asked for by it
        at = min(parts.clock(), contexts.credentials.leaf.not_after)
        return hand_on(contexts, placed.service, placed.datacenter, at)

    async def _reports(self, *, rows: bool) -> dict[int, Reported]:
        found: dict[int, Reported] = {}

        async def ask(number: int, link: Link) -> None:
            told = await link.report(rows=rows)
            if told is not None:
                found[number] = told

        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                if slot.serving is not None:
                    nursery.start_soon(ask, slot.number, slot.serving)
        return dict(sorted(found.items()))


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
