"""An HTTP app that writes down exactly what reached it, with a parser of its own that forgives nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

Pairs = list[tuple[str, str]]

HOP_BY_HOP = {"te", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"}


class Malformed(AssertionError):
    """The sidecar sent the app what it never may."""


@dataclass(slots=True)
class Reached:
    """One request, as the app got it."""

    method: str
    target: str
    headers: Pairs
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)

    @property
    def last(self) -> bool:
        """Whether it says that no other follows on its connection."""
        return self.header("connection") == ["close"]

    @property
    def has_body(self) -> bool:
        """Whether its head says that a body follows."""
        return self.header("content-length") not in ([], ["0"]) or bool(self.header("transfer-encoding"))

    def header(self, name: str) -> list[str]:
        """Every value of that header."""
        return [value for found, value in self.headers if found.lower() == name]


Answer = Callable[["AppSide", Reached], Awaitable[None]]


class AppSide:
    """One connection of the app: reads requests to their end, or answers before."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def line(self) -> str:
        """One line; EndOfStream at the end."""
        while b"\r\n" not in self.buffer:
            await self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise Malformed(f"line {line!r}")
        return line.decode("latin-1")

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < size:
            await self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def head(self) -> Reached:
        """The next request's head."""
        line = await self.line()
        match = re.fullmatch(r"([A-Za-z!#$%&'*+.^_`|~0-9-]+) ([\x21-\x7e]+) HTTP/1\.1", line)
        if match is None:
            raise Malformed(f"request line {line!r}")
        reached = Reached(method=match[1], target=match[2], headers=await self._fields())
        names = {name.lower() for name, _ in reached.headers}
        switching = reached.header("connection") == ["Upgrade"] and reached.header("upgrade") == ["websocket"]
        if names & HOP_BY_HOP or (names & {"connection", "upgrade"} and not (switching or reached.last)):
            raise Malformed(f"hop by hop: {reached.headers}")
        if reached.last is not reached.has_body:
            raise Malformed(f"a request with a body is the last one: {reached.headers}")
        return reached

    async def body(self, request: Reached) -> None:
        """What follows the head."""
        lengths, codings = request.header("content-length"), request.header("transfer-encoding")
        if len(lengths) + len(codings) > 1 or len(request.header("host")) != 1:
            raise Malformed(f"framing {request.headers}")
        if codings == ["chunked"]:
            while size := int((await self.line()).partition(";")[0], 16):
                request.body += await self.exactly(size)
                assert await self.line() == ""
            request.trailers = await self._fields()
        elif codings:
            raise Malformed(f"coding {codings}")
        elif lengths:
            request.body = await self.exactly(int(lengths[0]))

    async def say(self, *lines: str, body: bytes = b"") -> None:
        """A head, and whatever follows."""
        await self.stream.send_all("\r\n".join((*lines, "", "")).encode("latin-1") + body)

    async def ok(self, body: bytes = b"ok") -> None:
        """The plainest answer."""
        await self.say("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", body=body)

    async def _fields(self) -> Pairs:
        fields: Pairs = []
        while line := await self.line():
            match = re.fullmatch(r"([^\s:]+):[ \t]*(.*?)[ \t]*", line)
            if match is None:
                raise Malformed(f"header {line!r}")
            fields.append((match[1], match[2]))
        return fields

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise trio.EndOfChannel
        self.buffer += data


async def say_ok(side: AppSide, request: Reached) -> None:
    """The whole request, then 200."""
    await side.body(request)
    await side.ok()


@dataclass(slots=True)
class HttpApp:
    """The handler of a mesh's app. `reached` is every request whose head arrived, in order."""

    answer: Answer = say_ok
    reached: list[Reached] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    connections: int = 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        side = AppSide(stream)
        with contextlib.suppress(trio.EndOfChannel, trio.BrokenResourceError):
            while True:
                request = await self._head(side)
                self.reached.append(request)
                await self.answer(side, request)
                if request.last:
                    return

    async def _head(self, side: AppSide) -> Reached:
        try:
            return await side.head()
        except Malformed as error:
            self.malformed.append(error)
            raise trio.EndOfChannel from error
