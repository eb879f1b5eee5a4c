"""An HTTP proxy between a sidecar and its Consul agent, in a test's hands: the weather decides each request.

    front = Front(agent_port)
    await nursery.start(front.run)          # a sidecar asks 127.0.0.1:front.port
    front.turn(answering(500, "No cluster leader"))  # tests.weather.weathers
    front.turn(fair)

Weather changes for requests under way too: one that has no byte of an answer yet is judged anew. Every
request is counted with its moment.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11
import trio

from tests.support.fake_consul import receive_request

_CHUNK = 65536
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, OSError)
_HOP_BY_HOP = (b"connection", b"keep-alive", b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class Whole:
    """An agent's answer, read to its end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Exchange:
    """One request under way. Once `begun`, an answer is on its way and no other one is possible."""

    def __init__(
        self, near: trio.SocketStream, http: h11.Connection, agent: int, request: h11.Request, body: bytes
    ) -> None:
        self._near, self._http, self._agent = near, http, agent
        self._request, self._body = request, body
        self.begun = False

    @property
    def path(self) -> str:
        """The path that was asked."""
        return urlsplit(self._request.target.decode()).path

    async def fetch(self) -> Whole:
        """Ask the agent. Raises OSError if it is gone."""
        far = await trio.open_tcp_stream("127.0.0.1", self._agent)
        async with far:
            http = h11.Connection(h11.CLIENT)
            headers = [pair for pair in self._request.headers if pair[0] not in _HOP_BY_HOP]
            headers += [(b"connection", b"close"), (b"content-length", str(len(self._body)).encode())]
            head = h11.Request(method=self._request.method, target=self._request.target, headers=headers)
            for event in (head, h11.Data(data=self._body), h11.EndOfMessage()):
                await far.send_all(http.send(event) or b"")
            return await _read(http, far)

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]], length: int) -> None:
        """Send the head of an answer whose body has that many bytes."""
        self.begun = True
        kept = [pair for pair in headers if pair[0].lower() not in _HOP_BY_HOP]
        kept.append((b"content-length", str(length).encode()))
        await self._near.send_all(self._http.send(h11.Response(status_code=status, headers=kept)) or b"")

    async def send(self, data: bytes) -> None:
        """Send some bytes of the body."""
        await self._near.send_all(self._http.send(h11.Data(data=data)) or b"")

    async def finish(self) -> None:
        """End the answer, which must be whole."""
        await self._near.send_all(self._http.send(h11.EndOfMessage()) or b"")

    async def answer(self, whole: Whole) -> None:
        """Send all of an answer."""
        await self.begin(whole.status, whole.headers, len(whole.body))
        await self.send(whole.body)
        await self.finish()

    async def close(self) -> None:
        """Reset the connection."""
        await _reset(self._near)


Weather = Callable[[Exchange], Awaitable[None]]


async def fair(exchange: Exchange) -> None:
    """Pass the request on, and the answer back."""
    await exchange.answer(await exchange.fetch())


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when, by trio's clock, and for what."""

    at: float
    path: str


@dataclass(slots=True)
class Front:
    """The proxy before the agent at a port of loopback. `deaf`: connections are accepted and not read."""

    agent: int
    port: int = 0
    weather: Weather = fair
    deaf: bool = False
    asked: list[Asked] = field(default_factory=list)
    _changed: trio.Event = field(default_factory=trio.Event)
    _broken: trio.Event = field(default_factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on a port of the kernel's choice, for ever."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    def turn(self, weather: Weather, *, deaf: bool = False, breaking: bool = False) -> None:
        """Change the weather; `breaking` resets every connection that is open."""
        self.weather, self.deaf = weather, deaf
        self._changed.set()
        self._changed = trio.Event()
        if breaking:
            self._broken.set()
            self._broken = trio.Event()

    def since(self, at: float) -> Counter[str]:
        """Return the requests since that moment of trio's clock, by path."""
        return Counter(one.path for one in self.asked if one.at >= at)

    def busiest_second(self, begin: float, end: float) -> int:
        """Return the most requests of a second between two moments."""
        seconds = Counter(int(one.at - begin) for one in self.asked if begin <= one.at < end)
        return max(seconds.values(), default=0)

    async def _serve(self, near: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._break_off, self._broken, near, nursery.cancel_scope)
            with suppress(*_GONE):
                await self._converse(near)
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(near)

    async def _break_off(self, broken: trio.Event, near: trio.SocketStream, scope: trio.CancelScope) -> None:
        await broken.wait()
        await _reset(near)
        scope.cancel()

    async def _converse(self, near: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            while self.deaf:
                await self._changed.wait()
            request, body = await receive_request(http, near)
            if request is None:
                return
            exchange = Exchange(near, http, self.agent, request, body)
            self.asked.append(Asked(trio.current_time(), exchange.path))
            if not await self._judge(exchange, near):
                return
            http.start_next_cycle()

    async def _judge(self, exchange: Exchange, near: trio.SocketStream) -> bool:
        """Treat a request as the weather wants, anew whenever it changes; return whether it was answered."""
        while True:
            answered: list[bool] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._treat, exchange, answered, nursery.cancel_scope)
                nursery.start_soon(self._until_changed, exchange, nursery.cancel_scope)
                nursery.start_soon(_until_left, near, answered, nursery.cancel_scope)
            if answered:
                return answered[0]

    async def _treat(self, exchange: Exchange, answered: list[bool], scope: trio.CancelScope) -> None:
        try:
            await self.weather(exchange)
            answered.append(True)
        except _GONE:
            answered.append(False)
            await exchange.close()
        scope.cancel()

    async def _until_changed(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        await self._changed.wait()
        if not exchange.begun:
            scope.cancel()


async def _until_left(near: trio.SocketStream, answered: list[bool], scope: trio.CancelScope) -> None:
    """Cancel the scope when the asker leaves, who sends nothing before there is an answer."""
    try:
        left = not await near.socket.recv(1, socket.MSG_PEEK)
    except (OSError, trio.ClosedResourceError):
        left = True
    if left:
        answered.append(False)
        scope.cancel()


async def _read(http: h11.Connection, far: trio.SocketStream) -> Whole:
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await far.receive_some(_CHUNK)))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return Whole(head.status_code, list(head.headers), bytes(body))
        else:
            raise OSError("the agent has ended the connection")


async def _reset(stream: trio.SocketStream) -> None:
    """Close a connection so that its other end gets a reset, and no end of stream."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
