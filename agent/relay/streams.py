"""The two legs of an HTTP connection as byte streams: TLS towards the caller, plain towards our app.

Both work on the non-blocking sockets themselves, so that after an Upgrade the relay can take them over.
One task may receive while another sends. A cancelled receive has taken no byte.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.relay.pump import BUFFER, COLLECT, RECORD, explain, explain_system
from agent.relay.relay import Relay, Watching
from agent.relay.shared_wait import SharedWait
from agent.relay.splice import READ, Ending, Progress, Transfer

CHUNK = 64 * 1024  # bytes read from the plain leg at once
BURST = 4  # buffers moved before other tasks run


class StreamBroken(Exception):
    """A leg has failed: `ending` for machines, `detail` for a person."""

    def __init__(self, ending: Ending, detail: str) -> None:
        super().__init__(f"{ending.value}: {detail}")
        self.ending = ending
        self.detail = detail


class ByteStream(Protocol):
    """The part of a leg that HTTP uses."""

    async def receive(self) -> bytes:
        """Return bytes, or b"" at the end of the stream. Raises StreamBroken."""

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamBroken."""


class CallerStream(ByteStream, Protocol):
    """The caller's leg: a TLS connection, or a stream of a tunnel."""

    def send_nowait(self, data: memoryview) -> int:
        """Send what goes without waiting; return how many bytes. `send` must go on with exactly the rest."""

    async def send_end(self) -> None:
        """Send the end of our bytes. Raises StreamBroken."""

    async def relay(self, relay: Relay, app: socket.socket, progress: Progress, /) -> Transfer:
        """Copy between the caller and that socket until the end; the stream serves nothing else any more."""


class WatchedStream(CallerStream, Protocol):
    """A caller's leg that the relay's loop can serve between two waits of a task."""

    def has_come(self) -> bool:
        """Return whether the next `receive` need not wait, which no readiness of the socket would show."""

    def watch(
        self, relay: Relay, on_ready: Callable[[int], None], on_failure: Callable[[Exception], None], /
    ) -> None:
        """Call `on_ready` in the relay's loop when something may have come, until `unwatch`.

        `on_failure` hears what that raises, and the relay's end; it must call `unwatch`.
        """

    def unwatch(self) -> None:
        """End `watch`; may be called again."""

    def receive_nowait(self) -> bytes | None:
        """Return bytes; b"" at the end, or after a failure that `receive` then raises; None for nothing."""


class PlainStream:
    """A stdlib socket, TCP or unix. The caller closes it."""

    __slots__ = ("_progress", "_ready", "sock")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.sock = sock
        self._progress = progress
        self._ready = False  # the socket was readable a moment ago, so the next receive need not wait

    async def receive(self) -> bytes:
        """Return bytes, or b"" at the end of the stream. Raises StreamBroken."""
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
        """Read into `buffer`; return how many bytes, 0 at the end of the stream. Raises StreamBroken."""
        while True:
            try:
                return self.sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error

    async def readable_within(self, seconds: float) -> bool:
        """Return whether bytes, or the end of the stream, come within `seconds`."""
        with trio.CancelScope(deadline=trio.current_time() + seconds):
            await trio.lowlevel.wait_readable(self.sock)
            self._ready = True
        return self._ready

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamBroken."""
        rest = memoryview(data)
        while rest:
            try:
                sent = self.sock.send(rest)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)
                continue
            except OSError as error:
                raise StreamBroken(Ending.PLAIN_RESET, explain_system(error)) from error
            self._progress.add_plain(sent)
            rest = rest[sent:]

    def receive_nowait(self) -> bytes | None:
        """Return bytes, or b"" at the end or after a failure; None if nothing is there."""
        try:
            return bytes(_buffer[: self.sock.recv_into(_buffer, CHUNK)])
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send_at_once(self, data: bytes) -> int | None:
        """Send what goes without waiting; return how many bytes, None after a failure."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return None
        self._progress.add_plain(sent)
        return sent

    def quiet(self) -> bool:
        """Return whether nothing has come since the last read: no byte, no end, no error."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:  # an error too has come since
            return False
        return False


class TlsStream:
    """A handshaken pyOpenSSL connection over a non-blocking socket. The caller closes the socket."""

    __slots__ = (
        "_broken",
        "_ended",
        "_progress",
        "_readable",
        "_sock",
        "_watched",
        "_writable",
        "connection",
    )

    def __init__(self, connection: SSL.Connection, sock: socket.socket, progress: Progress) -> None:
        self.connection = connection
        self._broken: tuple[Ending, str] | None = None
        self._ended = False
        self._progress = progress
        self._sock = sock
        self._watched: tuple[Relay, int, Watching] | None = None
        self._readable = SharedWait(trio.lowlevel.wait_readable, sock)
        self._writable = SharedWait(trio.lowlevel.wait_writable, sock)

    async def receive(self) -> bytes:
        """Return bytes, or b"" after close_notify. Raises StreamBroken."""
        if self._broken is not None:
            raise StreamBroken(*self._broken)
        if self._ended:  # the socket will not become readable again
            await trio.lowlevel.checkpoint()
            return b""
        if self.connection.pending():  # decrypted already: the socket will not show it
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
        """Return `first` and what follows, up to COLLECT; keep an end or a failure for the next receive."""
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
        """Send all of `data`. Raises StreamBroken."""
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
                self._progress.add_tls(sent)
                rest = rest[sent:]

    def send_nowait(self, data: memoryview) -> int:
        """Send what goes without waiting; return how many bytes. `send` must go on with exactly the rest."""
        total, sent = len(data), 0
        with contextlib.suppress(SSL.Error):  # the next `send` meets the same error
            while sent < total:
                sent += self.connection.send(data[sent:])
        self._progress.add_tls(sent)
        return sent

    def has_come(self) -> bool:
        """See WatchedStream."""
        return self._ended or self._broken is not None or self.connection.pending() > 0

    def watch(
        self, relay: Relay, on_ready: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """See WatchedStream."""
        fd = self._sock.fileno()
        watching = relay.attach(fd, on_ready, on_failure)
        self._watched = relay, fd, watching
        watching.want(READ)

    def unwatch(self) -> None:
        """See WatchedStream."""
        if self._watched is not None:
            relay, fd, watching = self._watched
            self._watched = None
            relay.detach(fd, watching)

    def receive_nowait(self) -> bytes | None:
        """See WatchedStream."""
        try:
            data = self.connection.recv(RECORD)
        except (SSL.WantReadError, SSL.WantWriteError):
            return None
        except SSL.ZeroReturnError:
            self._ended = True
            return b""
        except SSL.Error as error:
            self._broken = explain(error)
            return b""
        return data if len(data) < RECORD else self._collected(data)

    async def relay(self, relay: Relay, app: socket.socket, progress: Progress) -> Transfer:
        """See CallerStream."""
        return await relay.run(app, self.connection, progress)

    async def send_end(self) -> None:
        """Send close_notify. Raises StreamBroken."""
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


async def pour(app: PlainStream, caller: CallerStream, length: int) -> int:
    """Copy `length` bytes from app to caller; return how many are missing at the end. Raises StreamBroken.

    All connections share the buffer, so no byte in it outlives a wait.
    """
    turns = 0
    while length:
        part = _buffer[: min(length, BUFFER)]
        size = await app.receive_into(part)
        if not size:
            return length
        length -= size
        sent = caller.send_nowait(part[:size])
        if sent < size:
            await caller.send(bytes(part[sent:size]))
        turns += 1
        if turns % BURST == 0:
            await trio.lowlevel.checkpoint()
    return 0


_buffer = memoryview(bytearray(BUFFER))
