"""Moves the bytes of one connection between its two legs, as its splice allows; never waits.

The relay's loop calls `Pump.on_plain` and `Pump.on_tls` when a leg is ready. The first lines of each handle a
small message completely: one read, one write, two counters. The theory of operation is in `relay.py`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Protocol

from OpenSSL import SSL

from agent.relay.splice import NONE, READ, WRITE, Ending, Progress, Splice, Step
from certs.error_queue import MALLOC_FAILURE, forget_errors

# The most plain text one TLS record holds (RFC 8446 section 5.1). A read of that size leaves nothing
# decrypted behind in OpenSSL, which epoll would not see, and costs no more than a smaller one.
RECORD = 16 * 1024
COLLECT = 128 * 1024  # bytes gathered from TLS before one write to the plain leg
BUFFER = 128 * 1024  # bytes read from the plain leg at once: eight records
BURSTS = 4  # buffers per direction and event, so that one stream cannot starve the others

_BROKEN = select.EPOLLERR | select.EPOLLHUP
_SHORTAGES = (errno.ENOMEM, errno.ENOBUFS)
_UNEXPECTED_EOF = -1  # pyOpenSSL's errno for a TCP end without close_notify


class PlainLeg(Protocol):
    """The part of a non-blocking stdlib socket that the pump uses."""

    def recv_into(self, buffer: memoryview, /) -> int: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def sendmsg(self, chunks: list[bytes], /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...


class TlsLeg(Protocol):
    """The part of a pyOpenSSL connection over a non-blocking socket that the pump uses."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: memoryview, /) -> int: ...
    def shutdown(self) -> bool: ...


class Watch(Protocol):
    """The relay's interest in one leg."""

    def want(self, mask: int, /) -> None: ...
    def park(self) -> None: ...


class Pump:
    """One connection in the relay. Its public methods return whether the connection is over."""

    __slots__ = (
        "_buffer",
        "_dying",
        "_plain",
        "_plain_watch",
        "_progress",
        "_splice",
        "_tls",
        "_tls_watch",
    )

    def __init__(
        self,
        plain: PlainLeg,
        tls: TlsLeg,
        *,
        watches: tuple[Watch, Watch],
        buffer: memoryview,
        splice: Splice,
        progress: Progress,
    ) -> None:
        """All pumps of a relay share `buffer`: no byte in it outlives a call."""
        self._plain = plain
        self._tls = tls
        self._plain_watch, self._tls_watch = watches
        self._buffer = buffer
        self._splice = splice
        self._progress = progress
        self._dying = False

    def start(self) -> bool:
        """Move what OpenSSL decrypted before the relay began, which wakes no epoll; then watch both legs."""
        self._tls_to_plain()
        return self._settle()

    def on_plain(self, events: int) -> bool:
        """Handle `events` of the plain leg."""
        if events == READ:  # the pump watches for READ only while the TLS leg takes more
            return self._plain_to_tls() and self._settle()
        splice = self._splice
        if splice.plain_rest:
            self._flush_plain()
        if splice.reads_plain and events & READ:
            self._plain_to_tls()
        elif events & _BROKEN and splice.ending is None:
            self._plain_hung_up(events)
        return self._settle()

    def on_tls(self, events: int) -> bool:
        """Handle `events` of the TLS leg."""
        splice = self._splice
        if events == READ and splice.tls_read_wants == READ and not splice.tls_write_wants:
            return self._tls_to_plain() and self._settle()
        if splice.tls_write_wants & events or (splice.tls_write_wants and events & _BROKEN):
            self._flush_tls()
        if splice.reads_tls and events & (splice.tls_read_wants | _BROKEN):
            splice.tls_read_wants = READ
            self._tls_to_plain()
        elif events & _BROKEN and splice.ending is None:
            self._tls_hung_up(events)
        return self._settle()

    # Moving bytes. Each returns whether more than bytes has changed, so that the splice must decide.

    def _plain_to_tls(self) -> bool:
        buffer = self._buffer
        for _ in range(BURSTS):
            try:
                size = self._plain.recv_into(buffer)
            except BlockingIOError:
                return False
            except OSError as error:
                self._splice.fail(Ending.PLAIN_RESET, explain_system(error))
                return True
            if not size:
                self._splice.plain_gave_end()
                return True
            if not self._write_tls(buffer[:size]):
                return True
            if size < len(buffer):
                return False  # level triggering brings the rest
        return False

    def _tls_to_plain(self) -> bool:
        for _ in range(BURSTS):
            try:
                data = self._tls.recv(RECORD)
            except SSL.Error as error:
                return self._tls_stopped(error)
            if len(data) < RECORD:
                return not self._write_plain(data)
            chunks = [data]
            stop = self._collect(chunks)
            written = self._write_plain_chunks(chunks)
            if stop is not None:
                return self._tls_stopped(stop) or not written
            if not written:
                return True
            if len(chunks[-1]) < RECORD:
                return False
        return False

    def _collect(self, chunks: list[bytes]) -> SSL.Error | None:
        """Read on, up to COLLECT; return the error that stopped it, None after a short read."""
        recv = self._tls.recv
        try:
            for _ in range(COLLECT // RECORD - 1):
                data = recv(RECORD)
                chunks.append(data)
                if len(data) < RECORD:
                    return None
        except SSL.Error as error:
            # Its traceback refers to this frame: a cycle that holds the connection and all bytes read.
            return error.with_traceback(None)
        return None

    def _write_plain(self, data: bytes) -> bool:
        try:
            sent = self._plain.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._plain_write_failed(error)
            return False
        if not self._progress.to_plain:  # as `add_plain`, without a call for each message
            self._progress.plain_since = self._progress.now()
        self._progress.to_plain += sent
        if sent == len(data):
            return True
        self._splice.plain_blocked(data[sent:])
        return False

    def _write_plain_chunks(self, chunks: list[bytes]) -> bool:
        try:
            sent = self._plain.sendmsg(chunks)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._plain_write_failed(error)
            return False
        self._progress.add_plain(sent)
        if sent == sum(map(len, chunks)):
            return True
        self._splice.plain_blocked(b"".join(chunks)[sent:])
        return False

    def _write_tls(self, data: memoryview) -> bool:
        send, total, sent = self._tls.send, len(data), 0
        try:
            sent = send(data)
            while sent < total:  # one call takes one record
                sent += send(data[sent:])
        except SSL.WantWriteError:
            self._splice.tls_blocked(bytes(data[sent:]), WRITE)
        except SSL.WantReadError:
            self._splice.tls_blocked(bytes(data[sent:]), READ)
        except SSL.Error as error:
            self._tls_write_failed(error)
        if not self._progress.to_tls:
            self._progress.tls_since = self._progress.now()
        self._progress.to_tls += sent
        return sent == total

    # Blocked writes, failures and ends.

    def _flush_plain(self) -> None:
        splice = self._splice
        rest = memoryview(splice.plain_rest)
        try:
            sent = self._plain.send(rest)
        except BlockingIOError:
            return
        except OSError as error:
            self._plain_write_failed(error)
            return
        self._progress.add_plain(sent)
        if sent == len(rest):
            splice.plain_flushed()
        else:
            splice.plain_blocked(rest[sent:])

    def _flush_tls(self) -> None:
        """Retry the write that blocked, with the same bytes; `_settle` retries a close_notify."""
        rest = self._splice.tls_rest
        if not rest or self._write_tls(memoryview(rest)):
            self._splice.tls_flushed()

    def _tls_stopped(self, error: SSL.Error) -> bool:
        """Note why a TLS read gave no bytes; return False if none are there just now."""
        if isinstance(error, SSL.WantReadError):
            return False
        if isinstance(error, SSL.WantWriteError):
            self._splice.tls_read_wants = WRITE
        elif isinstance(error, SSL.ZeroReturnError):
            self._splice.tls_gave_end()
        elif error.args != ([],) or not self._dying:  # an empty error repeats an earlier failure
            self._splice.fail(*explain(error))
        return True

    def _plain_write_failed(self, error: OSError) -> None:
        """End the plain leg. Bytes it sent before may still be in the kernel, and are passed on."""
        self._splice.lost = True
        if not self._dying and self._splice.reads_plain:
            self._dying = True
            self._plain_to_tls()
        self._splice.fail(Ending.PLAIN_RESET, explain_system(error))

    def _tls_write_failed(self, error: SSL.Error) -> None:
        """End the TLS leg. Read first: an alert that the peer sent explains more than the failed write."""
        self._splice.lost = True
        why = explain(error)
        if not self._dying and self._splice.reads_tls:
            self._dying = True
            self._tls_to_plain()
        self._splice.fail(*why)

    def _plain_hung_up(self, events: int) -> None:
        """Handle an error or hang-up with nothing to read: these wake epoll whatever the mask is."""
        if events & select.EPOLLERR:
            code = self._plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._splice.fail(Ending.PLAIN_RESET, _name(code or errno.ECONNRESET))
        elif self._splice.plain_interest() == NONE:
            # Both directions of the leg are shut, and bytes wait to be read once the TLS leg takes more.
            self._plain_watch.park()

    def _tls_hung_up(self, events: int) -> None:
        if events & select.EPOLLERR:
            self._splice.fail(Ending.TLS_RESET, _name(errno.ECONNRESET))
        elif self._splice.tls_interest() == NONE:
            self._tls_watch.park()

    def _settle(self) -> bool:
        """Take the steps that are due, then watch for what is wanted next; return whether all is over."""
        splice = self._splice
        while (step := splice.due()) is not None:
            if step is Step.FINISH:
                return True
            if step is Step.SHUT_PLAIN:
                self._shut_plain()
            else:
                self._shut_tls()
        self._plain_watch.want(splice.plain_interest())
        self._tls_watch.want(splice.tls_interest())
        return False

    def _shut_plain(self) -> None:
        try:
            self._plain.shutdown(socket.SHUT_WR)
        except OSError as error:  # reset in the meantime
            self._splice.shut_failed(Ending.PLAIN_RESET, explain_system(error))
        else:
            self._splice.plain_was_shut()

    def _shut_tls(self) -> None:
        try:
            self._tls.shutdown()
        except SSL.WantWriteError:
            self._splice.tls_blocked(b"", WRITE)
        except SSL.WantReadError:
            self._splice.tls_blocked(b"", READ)
        except SSL.Error as error:
            self._splice.shut_failed(*explain(error))
        else:
            self._splice.tls_was_shut()


def explain(error: SSL.Error) -> tuple[Ending, str]:
    """Return a TLS failure's ending and its text for a person; empty OpenSSL's error queue of it.

    A failure left in the queue would be reported by another connection's next call.
    """
    if isinstance(error, SSL.SysCallError):
        forget_errors()
        code = error.args[0]
        if code == _UNEXPECTED_EOF:
            return Ending.TLS_TRUNCATED, "TCP ended without close_notify"
        return Ending.NO_RESOURCES if code in _SHORTAGES else Ending.TLS_RESET, _name(code)
    reasons = [reason for _, _, reason in error.args[0]] if error.args else []
    if MALLOC_FAILURE in reasons:
        return Ending.NO_RESOURCES, MALLOC_FAILURE
    return Ending.TLS_FAILED, "; ".join(reasons) or "OpenSSL gave no reason"


def explain_system(error: OSError) -> str:
    return _name(error.errno or errno.EIO)


def _name(code: int) -> str:
    return f"{errno.errorcode.get(code, code)}: {os.strerror(code)}"
