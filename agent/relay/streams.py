"""The two legs of an HTTP connection as byte streams: TLS towards the caller, plain towards our app.

Both work on the non-blocking sockets themselves, so that after an Upgrade they can be handed to the relay.
One task may receive while another sends. A receive that is cancelled has taken no byte.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.relay.pump import BUFFER, COLLECT, RECORD, explain, explain_system
from agent.relay.splice import Ending, Progress

CHUNK = 64 * 1024  # bytes asked of the plain leg at once
BURST = 4  # buffers moved before other tasks run


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

    __slots__ = ("_progress", "_ready", "sock")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.sock = sock
        self._progress = progress
        self._ready = False  # it was readable a moment ago, so that the next receive need not wait

    async def receive(self) -> bytes:
        """Bytes, or none at the end of the stream; raise StreamBroken."""
        while True:
            if not self._ready:
                await trio.lowlevel.wait_readable(self.sock)
            self._ready = False
            try:
                return self.sock.recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error

    async def receive_into(self, buffer: memoryview) -> int:
        """So many bytes into the buffer as there are, none at the end of the stream; raise StreamBroken."""
        while True:
            try:
                return self.sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error

    async def readable_within(self, seconds: float) -> bool:
        """Whether bytes, or the end, come within that time."""
        with trio.CancelScope(deadline=trio.current_time() + seconds):
            await trio.lowlevel.wait_readable(self.sock)
            self._ready = True
        return self._ready

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

    __slots__ = ("_broken", "_ended", "_progress", "_readable", "_writable", "connection")

    def __init__(self, connection: SSL.Connection, sock: socket.socket, progress: Progress) -> None:
        self.connection = connection
        self._broken: tuple[Ending, str] | None = None
        self._ended = False
        self._progress = progress
        self._readable = _SharedWait(trio.lowlevel.wait_readable, sock)
        self._writable = _SharedWait(trio.lowlevel.wait_writable, sock)

    async def receive(self) -> bytes:
        """Bytes, or none after close_notify; raise StreamBroken."""
        if self._broken is not None:
            raise StreamBroken(*self._broken)
        if self._ended:  # nothing will make the socket readable again
            await trio.lowlevel.checkpoint()
            return b""
        if self.connection.pending():  # decrypted already: the socket will not tell of it
            await trio.lowlevel.checkpoint()
        else:
            await self._readable.wait()
        while True:
            try:
                data = self.connection.recv(RECORD)
            except SSL.WantReadError:
                await self._readable.wait()
            except SSL.WantWriteError:
                await self._writable.wait()
            except SSL.ZeroReturnError:
                self._ended = True
                return b""
            except SSL.Error as error:
                raise StreamBroken(*explain(error)) from error
            else:
                return data if len(data) < RECORD else self._collected(data)

    def _collected(self, first: bytes) -> bytes:
        """With it what else has come, up to COLLECT; an end or a break is kept for the next receive."""
        chunks = [first]
        try:
            while len(chunks) < COLLECT // RECORD and len(chunks[-1]) == RECORD:
                chunks.append(self.connection.recv(RECORD))
        except (SSL.WantReadError, SSL.WantWriteError):
            pass
        except SSL.ZeroReturnError:
            self._ended = True
        except SSL.Error as error:
            self._broken = explain(error)
        return b"".join(chunks)

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

    def send_at_once(self, data: memoryview) -> int:
        """As much as goes without waiting, and how much that was; `send` must go on with the very rest."""
        total, sent = len(data), 0
        with contextlib.suppress(SSL.Error):  # `send` meets it again
            while sent < total:
                sent += self.connection.send(data[sent:])
        self._progress.to_tls += sent
        return sent

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


async def pour(app: PlainStream, caller: TlsStream, length: int) -> int:
    """Copy so many bytes from one to the other; say how many are missing at the end. Raises StreamBroken.

    The buffer is everybody's, and nothing of it is kept while we wait.
    """
    turns = 0
    while length:
        part = _buffer[: min(length, BUFFER)]
        size = await app.receive_into(part)
        if not size:
            return length
        length -= size
        sent = caller.send_at_once(part[:size])
        if sent < size:
            await caller.send(bytes(part[sent:size]))
        turns += 1
        if turns % BURST == 0:
            await trio.lowlevel.checkpoint()
    return 0


_buffer = memoryview(bytearray(BUFFER))


class _SharedWait:
    """A wait for one readiness of a socket, which trio lets only one task do: others wait for that one.

    A TLS write may have to wait for what a read is waiting for already.
    """

    __slots__ = ("_ended", "_sock", "_wait", "_waiting")

    def __init__(self, wait: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
        self._wait = wait
        self._sock = sock
        self._waiting = False
        self._ended: trio.Event | None = None  # made when somebody else waits too

    async def wait(self) -> None:
        if self._waiting:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()
            return
        self._waiting = True
        try:
            await self._wait(self._sock)
        finally:
            self._waiting = False
            if self._ended is not None:
                self._ended.set()
                self._ended = None
