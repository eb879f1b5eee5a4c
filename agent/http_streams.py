"""The two legs of an HTTP connection as byte streams: TLS towards the caller, plain towards our app.

Both work on the non-blocking sockets themselves, so that after an Upgrade they can be handed to the relay.
One task may receive while another sends. A receive that is cancelled has taken no byte.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.pump import explain, explain_system
from agent.splice import Ending, Progress

CHUNK = 64 * 1024  # bytes asked for at once


class StreamBroken(Exception):
    """A leg has failed: `ending` for machines, `detail` for a person."""

    def __init__(self, ending: Ending, detail: str) -> None:
        super().__init__(f"{ending.value}: {detail}")
        self.ending = ending
        self.detail = detail


class ByteStream(Protocol):
    """What HTTP needs of a leg."""

    async def receive(self) -> bytes:
        """Bytes, or none at the end of the stream; raise StreamBroken."""

    async def send(self, data: bytes) -> None:
        """All of it; raise StreamBroken."""


class PlainStream:
    """A stdlib socket, TCP or unix. The caller closes it."""

    __slots__ = ("_progress", "sock")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.sock = sock
        self._progress = progress

    async def receive(self) -> bytes:
        """Bytes, or none at the end of the stream; raise StreamBroken."""
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            try:
                return self.sock.recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error

    async def readable_within(self, seconds: float) -> bool:
        """Whether bytes, or the end, come within that time."""
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_readable(self.sock)
            return True
        return False

    async def send(self, data: bytes) -> None:
        """All of it; raise StreamBroken."""
        rest = memoryview(data)
        while rest:
            try:
                sent = self.sock.send(rest)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)
                continue
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error
            self._progress.to_plain += sent
            rest = rest[sent:]

    def quiet(self) -> bool:
        """Whether nothing has come since: no byte, no end, no error."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:  # whatever it is, it is not quiet
            return False
        return False


class TlsStream:
    """A handshaken pyOpenSSL connection over a non-blocking socket. The caller closes the socket."""

    __slots__ = ("_ended", "_progress", "_readable", "_writable", "connection")

    def __init__(self, connection: SSL.Connection, sock: socket.socket, progress: Progress) -> None:
        self.connection = connection
        self._ended = False
        self._progress = progress
        self._readable = _SharedWait(trio.lowlevel.wait_readable, sock)
        self._writable = _SharedWait(trio.lowlevel.wait_writable, sock)

    async def receive(self) -> bytes:
        """Bytes, or none after close_notify; raise StreamBroken."""
        if self._ended:  # nothing will make the socket readable again
            await trio.lowlevel.checkpoint()
            return b""
        if self.connection.pending():  # decrypted already: the socket will not tell of it
            await trio.lowlevel.checkpoint()
        else:
            await self._readable.wait()
        while True:
            try:
                return self.connection.recv(CHUNK)
            except SSL.WantReadError:
                await self._readable.wait()
            except SSL.WantWriteError:
                await self._writable.wait()
            except SSL.ZeroReturnError:
                self._ended = True
                return b""
            except SSL.Error as error:
                raise StreamBroken(*explain(error)) from error

    async def send(self, data: bytes) -> None:
        """All of it; raise StreamBroken."""
        rest = memoryview(data)
        while rest:
            try:
                sent = self.connection.send(rest)  # a record at most; after a Want, the same bytes again
            except SSL.WantWriteError:
                await self._writable.wait()
            except SSL.WantReadError:
                await self._readable.wait()
            except SSL.Error as error:
                raise StreamBroken(*explain(error)) from error
            else:
                self._progress.to_tls += sent
                rest = rest[sent:]

    async def send_end(self) -> None:
        """Say close_notify; raise StreamBroken."""
        while True:
            try:
                self.connection.shutdown()
            except SSL.WantWriteError:
                await self._writable.wait()
            except SSL.WantReadError:
                await self._readable.wait()
            except SSL.Error as error:
                raise StreamBroken(*explain(error)) from error
            else:
                return


class _SharedWait:
    """A wait for one readiness of a socket, which trio lets only one task do: others wait for that one.

    A TLS write may have to wait for what a read is waiting for already.
    """

    __slots__ = ("_ended", "_sock", "_wait")

    def __init__(self, wait: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
        self._wait = wait
        self._sock = sock
        self._ended: trio.Event | None = None

    async def wait(self) -> None:
        if self._ended is not None:
            await self._ended.wait()
            return
        self._ended = trio.Event()
        try:
            await self._wait(self._sock)
        finally:
            self._ended.set()
            self._ended = None
