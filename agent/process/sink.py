"""Standard error that makes no writer wait: text is written, kept for later, or lost and counted.

A reader process of our log may stop reading; a full pipe would then stop the one thread that serves. Setting
O_NONBLOCK on the inherited descriptor is no remedy, since the flag belongs to the open file description,
which the shell and other processes share. So the way to write depends on the descriptor:

* a socket (journald's stream): MSG_DONTWAIT, which applies to one call;
* a pipe or a terminal: opened again by /proc/self/fd, for a description of our own that has the flag;
* a pipe that may not be opened again (of another user): written to only when it is ready, and at most
  PIPE_BUF at once, which a ready pipe takes unless another process fills it in the same moment;
* anything else, mostly a file: written to directly, for a file has no reader to wait for.

No thread writes the log: it would pass the interpreter lock to and fro with the thread that serves.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TextIO, cast

import trio

KEPT_BYTES = 256 << 10  # some two thousand lines
_PIPE_BUF = 4096  # bytes that a pipe takes whole or not at all: pipe(7)
FINISH_SECONDS = 1.0  # for what is kept when the process ends


class Way(NamedTuple):
    """How a descriptor is written to. `write` returns the bytes taken; raises BlockingIOError, OSError."""

    write: Callable[[bytes], int]
    fd: int | None = None  # the inherited descriptor
    eager: bool = True  # `write` may be called before the descriptor is known to be ready
    close: Callable[[], None] = lambda: None


class Sink(io.TextIOBase):
    """A text stream to write to. `lost`: how many writes will never reach a reader.

    `journal_stream`: JOURNAL_STREAM, by which systemd names the stream of its journal (systemd.exec(5)).
    `to_journal`: the stream is that one, so that each line may begin with its priority (sd-daemon(3)).
    `way`: how to write, where it is not to a stream.
    """

    def __init__(self, stream: TextIO | None, journal_stream: str = "", way: Way | None = None) -> None:
        self._way = way or _way(stream)
        self.to_journal = self._way.fd is not None and _identity(self._way.fd) == journal_stream
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._news = trio.Event()
        self._untold = 0
        self.lost = 0
        self.problem = (
            "" if stream is not None or way is not None else "standard error is closed: the log is lost"
        )

    def writable(self) -> bool:
        """Return True: a sink can always be written to."""
        return True

    def fileno(self) -> int:
        """Return the inherited descriptor. Raises OSError if there is none."""
        if self._way.fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._way.fd

    def close(self) -> None:
        """Close what was opened here; the inherited descriptor stays open."""
        if not self.closed:
            self._way.close()
        super().close()

    @property
    def stream(self) -> TextIO:
        """The sink itself; typeshed does not know that a TextIOBase is a TextIO."""
        return cast("TextIO", self)

    @property
    def waits(self) -> bool:
        """Whether text is kept for later."""
        return bool(self._kept)

    def write(self, text: str) -> int:
        """Write the text now, keep it for later, or lose it; never wait and never raise."""
        self.put(text.encode(errors="backslashreplace"))
        return len(text)

    def put(self, data: bytes) -> None:
        """Do the same with bytes, which are written as they are: one line, or one datagram."""
        if self._kept or not self._way.eager:
            self._keep(data)
        elif rest := self._push(data):
            self._keep(rest, begun=len(rest) < len(data))
        elif self._untold:
            self._news.set()

    async def caught_up(self) -> int:
        """Write kept text as the reader takes it; then return how many writes were lost.

        Returns only if some were lost. The caller calls it again and again while the process lives.
        """
        while True:
            await self._news.wait()
            await self._drain()
            if self._untold:
                lost, self._untold = self._untold, 0
                return lost

    async def finish(self, seconds: float = FINISH_SECONDS) -> None:
        """Write kept text for at most `seconds`; the rest is lost."""
        with trio.move_on_after(seconds):
            await self._drain()
        self.lost += len(self._kept)
        self._kept.clear()

    async def _drain(self) -> None:
        self._news = trio.Event()
        while self._kept:
            await trio.lowlevel.wait_writable(self.fileno())
            self._push_kept()

    def _push_kept(self) -> None:
        """Write kept text until the descriptor blocks; if it is ready, at least the first piece."""
        while self._kept:
            data = self._kept.popleft()
            self._kept_bytes -= len(data)
            rest = self._push(data)
            if rest:
                self._kept.appendleft(rest)
                self._kept_bytes += len(rest)
            if rest or not self._way.eager:
                return

    def _push(self, data: bytes) -> bytes:
        """Write `data`; return the bytes that were not taken."""
        try:
            if not self._way.eager:
                return data[self._way.write(data[:_PIPE_BUF]) :]
            while data:
                data = data[self._way.write(data) :]
        except BlockingIOError:
            return data
        except (OSError, ValueError):  # closed, or the reader is gone; a lost log line must end nothing
            self._lose()
        return b""

    def _keep(self, data: bytes, *, begun: bool = False) -> None:
        """Keep `data` if there is room. The rest of a begun line is always kept, or two lines would merge."""
        if self._kept_bytes + len(data) > KEPT_BYTES and not begun:
            self._lose()
        else:
            self._kept.append(data)
            self._kept_bytes += len(data)
        self._news.set()

    def _lose(self) -> None:
        self.lost += 1
        self._untold += 1


def replace_closed_streams() -> None:
    """Replace the standard streams that were closed when the process began.

    Otherwise the next descriptor that is opened would get number 2, and what a library writes to standard
    error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or Sink(None)


@contextmanager
def never_waiting(journal_stream: str = "") -> Iterator[Sink]:
    """Put a sink in the place of sys.stderr; kept text has FINISH_SECONDS at the end."""
    before = sys.stderr
    sink = before if isinstance(before, Sink) else Sink(before, journal_stream)
    sys.stderr = sink
    try:
        yield sink
    finally:
        sys.stderr = before
        if sink.waits:
            trio.run(sink.finish)
        if sink is not before:
            sink.close()


def _identity(fd: int) -> str:
    """Return device and inode of a descriptor in the form of JOURNAL_STREAM."""
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


def _way(stream: TextIO | None) -> Way:
    if stream is None:
        return Way(_nowhere)
    try:
        stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError):  # a text in memory: io.UnsupportedOperation is both
        return Way(partial(_as_text, stream))
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        return Way(lambda data: sock.send(data, socket.MSG_DONTWAIT), fd, close=sock.close)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        return _opened_again(fd) or Way(partial(os.write, fd), fd, eager=False)
    return Way(partial(os.write, fd), fd)


def _opened_again(fd: int) -> Way | None:
    """Open the same file with a description of our own; None if the system refuses."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        own = os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return None
    return Way(partial(os.write, own), fd, close=partial(os.close, own))


def _as_text(stream: TextIO, data: bytes) -> int:
    stream.write(data.decode())
    stream.flush()
    return len(data)


def _nowhere(_data: bytes) -> int:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
