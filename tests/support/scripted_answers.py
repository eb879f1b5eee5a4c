"""Legs in memory for the pump: they block, end, break and make odd wishes exactly when a test says so.

bench = Bench()                      # a pump between two scripted legs, and an epoll that is played by hand
bench.plain.arrives(b"hello")
bench.run()                          # deliver events, as a level-triggered epoll would, until all is quiet
assert bench.tls.sent == b"hello"
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Iterable

from OpenSSL import SSL

from agent.relay.pump import BUFFER, RECORD, Pump
from agent.relay.splice import NONE, READ, WRITE, Progress, Splice

MANY = 1 << 30
_SPINNING = 3  # events in a row without any effect


class Leg:
    """What both legs have: bytes on their way in, and room for bytes on their way out."""

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.sent = bytearray()
        self.room = MANY
        self.in_ended = False
        self.out_ended = False
        self.broken = False
        self.calls = 0

    def arrives(self, *chunks: bytes, end: bool = False) -> None:
        """The other side sends these, each to be read by a call of its own."""
        self.incoming.extend(chunk for chunk in chunks if chunk)
        self.in_ended = self.in_ended or end

    def breaks(self) -> None:
        """The connection is reset."""
        self.broken = True

    def ready(self) -> int:
        """What a level-triggered epoll would say, before the mask."""
        events = READ if self.incoming or self.in_ended or self.broken else NONE
        events |= WRITE if self.room or self.broken else NONE
        if self.broken:
            events |= select.EPOLLERR | select.EPOLLHUP
        if self.in_ended and self.out_ended:
            events |= select.EPOLLHUP
        return events


class Plain(Leg):
    """A scripted stdlib socket."""

    def recv_into(self, buffer: memoryview, /) -> int:
        self.calls += 1
        if not self.incoming:
            if self.broken:
                raise ConnectionResetError(errno.ECONNRESET, "reset")
            if self.in_ended:
                return 0
            raise BlockingIOError
        chunk = self.incoming.popleft()
        taken = chunk[: len(buffer)]
        if len(chunk) > len(taken):
            self.incoming.appendleft(chunk[len(taken) :])
        buffer[: len(taken)] = taken
        return len(taken)

    def send(self, data: bytes | memoryview, /) -> int:
        self.calls += 1
        assert len(data), "an empty write"
        assert not self.out_ended, "a write after the end"
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def sendmsg(self, chunks: list[bytes], /) -> int:
        return self.send(b"".join(chunks))

    def shutdown(self, how: int, /) -> None:
        assert how == socket.SHUT_WR
        if self.broken:
            raise OSError(errno.ENOTCONN, "not connected")
        self.out_ended = True

    def getsockopt(self, level: int, option: int, /) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.ECONNRESET if self.broken else 0


class Tls(Leg):
    """A scripted pyOpenSSL connection. Each chunk that arrives is a record, read in part if need be.

    `read_wants_write` and `write_wants_read` count down calls that make the odd wish first. A record that has
    been begun is not seen by epoll: its bytes are OpenSSL's already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: SSL.Error | None = None  # instead of close_notify, at the end
        self.read_wants_write = 0
        self.write_wants_read = 0
        self._begun = b""
        self._told_end = False
        self._retry = b""
        self._flown = 0

    def ready(self) -> int:
        """Decrypted bytes, and a close_notify that was read, wake no task."""
        events = super().ready()
        return events & ~READ if self._told_end and not self.broken else events

    def recv(self, size: int, /) -> bytes:
        self.calls += 1
        if self.read_wants_write:
            self.read_wants_write -= 1
            raise SSL.WantWriteError
        if not self._begun and self.incoming:
            self._begun = self.incoming.popleft()
            assert len(self._begun) <= RECORD
        if not self._begun:
            if self.broken:
                raise SSL.SysCallError(errno.ECONNRESET, "ECONNRESET")
            if self.in_ended:
                self._told_end = True
                raise self.failure or SSL.ZeroReturnError
            raise SSL.WantReadError
        taken, self._begun = self._begun[:size], self._begun[size:]
        return taken

    def send(self, data: memoryview, /) -> int:
        self.calls += 1
        assert len(data), "an empty write"
        assert not self.out_ended, "a write after close_notify"
        record = bytes(data[:RECORD])
        if self._retry:
            assert record[: len(self._retry)] == self._retry, "a retry with other bytes"
        if self.broken:
            raise SSL.SysCallError(errno.EPIPE, "EPIPE")
        if self.write_wants_read:
            self.write_wants_read -= 1
            self._retry = record
            raise SSL.WantReadError
        if self.room < len(record) - self._flown:  # part of the record is on its way
            self._flown += self.room
            self.room = 0
            self._retry = record
            raise SSL.WantWriteError
        self.room -= len(record) - self._flown
        self._retry, self._flown = b"", 0
        self.sent += record
        return len(record)

    def shutdown(self) -> bool:
        self.calls += 1
        if self.broken:
            raise SSL.SysCallError(errno.EPIPE, "EPIPE")
        if self.write_wants_read:
            self.write_wants_read -= 1
            raise SSL.WantReadError
        if not self.room:
            raise SSL.WantWriteError
        self.out_ended = True
        return False


class Watched:
    """One leg's place in an epoll played by hand."""

    def __init__(self) -> None:
        self.mask: int | None = None  # None: not in the epoll
        self.parked = 0

    def want(self, mask: int, /) -> None:
        if self.mask is None and self.parked and mask == NONE:
            return
        self.mask = mask

    def park(self) -> None:
        self.mask = None
        self.parked += 1

    def events(self, ready: int) -> int:
        """What epoll would report now."""
        if self.mask is None:
            return NONE
        return ready & (self.mask | select.EPOLLERR | select.EPOLLHUP)


class Bench:
    """A pump between two scripted legs."""

    def __init__(self) -> None:
        self.plain, self.tls = Plain(), Tls()
        self.plain_watch, self.tls_watch = Watched(), Watched()
        self.splice, self.progress = Splice(), Progress()
        self.pump = Pump(
            self.plain,
            self.tls,
            watches=(self.plain_watch, self.tls_watch),
            buffer=memoryview(bytearray(BUFFER)),
            splice=self.splice,
            progress=self.progress,
        )
        self.over = False
        self.started = False

    def ended(self) -> bool:
        """Whether the pump has said that it is over."""
        return self.over

    def turn(self, order: Iterable[str] = ("plain", "tls")) -> bool:
        """One batch of events; whether there was any."""
        if not self.started:
            self.started = True
            self.over = self.pump.start()
            return True
        some = False
        for name in order:
            if self.over:
                break
            leg, watch = (self.plain, self.plain_watch) if name == "plain" else (self.tls, self.tls_watch)
            events = watch.events(leg.ready())
            if events:
                some = True
                handler = self.pump.on_plain if name == "plain" else self.pump.on_tls
                self.over = handler(events)
        return some

    def run(self) -> None:
        """Turn until nothing more happens; fail if events come again and again without any effect."""
        idle = 0
        while not self.over and idle < _SPINNING:
            before = self._state()
            if not self.turn():
                return
            idle = idle + 1 if self._state() == before else 0
        assert self.over or idle < _SPINNING, "it spins"

    def _state(self) -> tuple[object, ...]:
        legs = [
            (sum(map(len, leg.incoming)), len(leg.sent), leg.in_ended, leg.out_ended)
            for leg in (self.plain, self.tls)
        ]
        wishes = (self.tls.read_wants_write, self.tls.write_wants_read)
        return (*legs, wishes, self.plain_watch.mask, self.tls_watch.mask, self.over)
