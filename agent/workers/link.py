"""The control process's end of one worker: tells it the board, asks how it is, hears what it wants.

Whatever the worker says is read by a schema. One that says nothing for `HUNG_SECONDS`, or something that is
no word, is given up: its link ends, and whoever began it kills it.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import trio

from agent.base.containment import FaultEvents, Where, contained
from agent.net.listeners import ListenerKey
from agent.workers.channel import Channel, ChannelClosed
from agent.workers.messages import Finish, HandedSockets, Report, Welcome, encode
from agent.workers.publisher import Subscriber
from agent.workers.reports import AskedAgain, GatewaysWanted, NotAWord, Reported, read

BEAT_SECONDS = 1.0  # between two reports nobody has asked for
START_SECONDS = 60.0  # for an interpreter to begin and to be told everything
HUNG_SECONDS = 10.0
PATIENCE = 2.0  # seconds for a report that somebody waits for


class WorkerEnd(StrEnum):
    """How a worker ended unasked."""

    EXITED = "exited"
    KILLED = "killed"
    HUNG = "hung"
    UNREADABLE = "unreadable"
    NOT_STARTED = "not_started"
    INTERNAL_ERROR = "internal_error"  # of ours, in talking to it


@dataclass(slots=True, eq=False)
class _Question:
    order: Report | Finish
    answered: trio.Event = field(default_factory=trio.Event)
    answer: Reported | None = None


class WorkerLink:
    """One worker, from welcome to end."""

    def __init__(
        self,
        sock: socket.socket,
        reader: Subscriber,
        *,
        pid: int,
        since: datetime,
        sockets: Callable[[ListenerKey], Sequence[socket.socket]],
        heard: Callable[[AskedAgain | GatewaysWanted], None],
        on_serving: Callable[[], None],
        faults: FaultEvents,
    ) -> None:
        self.pid = pid
        self.since = since
        self.serving = False  # it has carried out what there was to be told
        self.last: Reported | None = None
        self.cut = 0  # connections that had to be ended with it
        self._channel = Channel(sock)
        self._reader = reader
        reader.news = self._poke
        self._sockets = sockets
        self._heard = heard
        self._on_serving = on_serving
        self._faults = faults
        self._numbers = 0
        self._to_ask: deque[_Question] = deque()
        self._asked: dict[int, _Question] = {}
        self._poked = trio.Event()
        self._end: tuple[WorkerEnd, str] | None = None
        self._scope = trio.CancelScope()

    async def run(self, welcome: Welcome) -> tuple[WorkerEnd, str]:
        """Until it ends, and how that came. Times in seconds."""
        try:
            if not await contained(self._faults, Where.WORKER, f"worker {self.pid}", self._converse, welcome):
                self._over(WorkerEnd.INTERNAL_ERROR, "the link to it has failed; the log has more")
        finally:
            self.serving = False
            self._channel.close()
            self._reader.close()
            for question in (*self._to_ask, *self._asked.values()):
                question.answered.set()
        assert self._end is not None  # nothing else ends the scope but who is told, who hears and who looks
        return self._end

    async def _converse(self, welcome: Welcome) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, welcome)
                nursery.start_soon(self._hear)
                nursery.start_soon(self._look)

    async def report(self, *, rows: bool = False, patience: float = PATIENCE) -> Reported | None:
        """How it is doing once it has carried out what was said so far; None if it does not answer."""
        self._numbers += 1
        return await self._ask(self._numbers, Report(number=self._numbers, rows=rows), patience)

    async def finish(self, order: Finish) -> None:
        """End it. What it had, if it does not answer, counts as cut."""
        told = await self._ask(0, order, float("inf"))
        if told is not None:
            self.cut = told.cut or 0
        elif self.last is not None:
            self.cut = self.last.live

    async def _ask(self, number: int, order: Report | Finish, patience: float) -> Reported | None:
        if self._end is not None:
            return None
        question = self._asked[number] = _Question(order)
        self._to_ask.append(question)
        self._poke()
        with trio.move_on_after(patience):
            await question.answered.wait()
        self._asked.pop(number, None)
        return question.answer

    def _poke(self) -> None:
        self._poked.set()

    async def _tell(self, welcome: Welcome) -> None:
        try:
            await self._channel.send(encode(welcome))
            while True:
                self._poked = trio.Event()
                if not await self._tell_next():
                    await self._poked.wait()
        except ChannelClosed as error:
            self._over(WorkerEnd.EXITED, str(error))

    async def _tell_next(self) -> bool:
        """One frame; whether there was one to send."""
        told = self._reader.next()
        if told is not None:
            name, frame = told
            await self._channel.send(frame, self._descriptors(name))
            return True
        if self._to_ask:
            await self._channel.send(encode(self._to_ask.popleft().order))
            return True
        return False

    def _descriptors(self, name: Hashable) -> list[int]:
        if isinstance(name, tuple) and name[0] is HandedSockets:
            return [sock.fileno() for sock in self._sockets(name[1])]
        return []

    async def _hear(self) -> None:
        try:
            while True:
                frame, _ = await self._channel.receive()
                self._take(frame)
        except ChannelClosed as error:
            self._over(WorkerEnd.EXITED, str(error))
        except NotAWord as error:
            self._over(WorkerEnd.UNREADABLE, str(error))

    def _take(self, frame: bytes) -> None:
        word = read(frame)
        if isinstance(word, Reported):
            self.last = word
            question = self._asked.pop(word.number, None)
            if question is not None:
                question.answer = word
                question.answered.set()
        else:
            self._heard(word)

    async def _look(self) -> None:
        patience = START_SECONDS
        while True:
            if await self.report(patience=patience) is None:
                self._over(WorkerEnd.HUNG, f"no answer within {patience:g} s")
                return
            if not self.serving:
                self.serving = True
                self._on_serving()
            patience = HUNG_SECONDS
            await trio.sleep(BEAT_SECONDS)

    def _over(self, death: WorkerEnd, detail: str) -> None:
        if self._end is None:
            self._end = death, detail
        self._scope.cancel()
