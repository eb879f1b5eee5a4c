"""The control process's end of one worker: sends it values, asks for reports, receives requests.

The worker's messages are decoded by a schema. If a worker does not answer for `HUNG_SECONDS`, or sends bytes
that are no message, its link ends and the supervisor kills the process.
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
from agent.workers.reports import NotAWorkerMessage, Reported, WorkerRequest, read

BEAT_SECONDS = 1.0  # between two reports asked for to see that the worker lives
START_SECONDS = 60.0  # for an interpreter to start and to apply all values
HUNG_SECONDS = 10.0
PATIENCE = 2.0  # seconds to wait for a report


class WorkerEnd(StrEnum):
    """How a worker ended by itself."""

    EXITED = "exited"
    KILLED = "killed"
    HUNG = "hung"
    UNREADABLE = "unreadable"
    NOT_STARTED = "not_started"
    INTERNAL_ERROR = "internal_error"  # in this process's link to it


@dataclass(slots=True, eq=False)
class _Question:
    message: Report | Finish
    answered: trio.Event = field(default_factory=trio.Event)
    answer: Reported | None = None


class WorkerLink:
    """One worker, from the welcome to its end."""

    def __init__(
        self,
        sock: socket.socket,
        subscriber: Subscriber,
        *,
        pid: int,
        since: datetime,
        sockets: Callable[[ListenerKey], Sequence[socket.socket]],
        on_request: Callable[[WorkerRequest], None],
        on_serving: Callable[[], None],
        faults: FaultEvents,
    ) -> None:
        self.pid = pid
        self.since = since
        self.serving = False  # it has applied the values it was sent
        self.last: Reported | None = None
        self.cut = 0  # connections that were cut by its end
        self._channel = Channel(sock, most_descriptors=0)  # a worker has none to send
        self._subscriber = subscriber
        subscriber.news = self._wake
        self._sockets = sockets
        self._on_request = on_request
        self._on_serving = on_serving
        self._faults = faults
        self._numbers = 0
        self._to_ask: deque[_Question] = deque()
        self._asked: dict[int, _Question] = {}
        self._woken = trio.Event()
        self._end: tuple[WorkerEnd, str] | None = None
        self._scope = trio.CancelScope()

    async def run(self, welcome: Welcome) -> tuple[WorkerEnd, str]:
        """Serve the link until the worker ends; return how it ended, and a detail."""
        try:
            if not await contained(self._faults, Where.WORKER, f"worker {self.pid}", self._converse, welcome):
                self._over(WorkerEnd.INTERNAL_ERROR, "the link to it has failed; the log has more")
        finally:
            self.serving = False
            self._channel.close()
            self._subscriber.close()
            for question in (*self._to_ask, *self._asked.values()):
                question.answered.set()
        assert self._end is not None  # each of the three tasks sets it before the scope ends
        return self._end

    async def _converse(self, welcome: Welcome) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, welcome)
                nursery.start_soon(self._receive)
                nursery.start_soon(self._check_liveness)

    async def report(self, *, rows: bool = False, patience: float = PATIENCE) -> Reported | None:
        """Ask for a report, made after all messages so far.

        Return None without an answer in `patience` seconds.
        """
        self._numbers += 1
        return await self._ask(self._numbers, Report(number=self._numbers, rows=rows), patience)

    async def finish(self, message: Finish) -> None:
        """End the worker. If it does not answer, its last known connections count as cut."""
        reported = await self._ask(0, message, float("inf"))
        if reported is not None:
            self.cut = reported.cut or 0
        elif self.last is not None:
            self.cut = self.last.live

    async def _ask(self, number: int, message: Report | Finish, patience: float) -> Reported | None:
        if self._end is not None:
            return None
        question = self._asked[number] = _Question(message)
        self._to_ask.append(question)
        self._wake()
        with trio.move_on_after(patience):
            await question.answered.wait()
        self._asked.pop(number, None)
        return question.answer

    def _wake(self) -> None:
        self._woken.set()

    async def _send(self, welcome: Welcome) -> None:
        try:
            await self._channel.send(encode(welcome))
            while True:
                self._woken = trio.Event()
                if not await self._send_next():
                    await self._woken.wait()
        except ChannelClosed as error:
            self._over(WorkerEnd.EXITED, str(error))

    async def _send_next(self) -> bool:
        """Send one frame; return whether there was one to send."""
        item = self._subscriber.next()
        if item is not None:
            name, frame = item
            await self._channel.send(frame, self._descriptors(name))
            return True
        if self._to_ask:
            await self._channel.send(encode(self._to_ask.popleft().message))
            return True
        return False

    def _descriptors(self, name: Hashable) -> list[int]:
        if isinstance(name, tuple) and name[0] is HandedSockets:
            return [sock.fileno() for sock in self._sockets(name[1])]
        return []

    async def _receive(self) -> None:
        try:
            while True:
                frame, _ = await self._channel.receive()
                self._take(frame)
        except ChannelClosed as error:
            self._over(WorkerEnd.EXITED, str(error))
        except NotAWorkerMessage as error:
            self._over(WorkerEnd.UNREADABLE, str(error))

    def _take(self, frame: bytes) -> None:
        message = read(frame)
        if isinstance(message, Reported):
            self.last = message
            question = self._asked.pop(message.number, None)
            if question is not None:
                question.answer = message
                question.answered.set()
        else:
            self._on_request(message)

    async def _check_liveness(self) -> None:
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

    def _over(self, end: WorkerEnd, detail: str) -> None:
        if self._end is None:
            self._end = end, detail
        self._scope.cancel()
