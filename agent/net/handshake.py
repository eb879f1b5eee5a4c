"""Drives one TLS handshake under a deadline, and names what prevents it.

Theory of operation. OpenSSL works on memory until the handshake is over: it is given one TLS record after
another, and its output is sent (`tls_records`); then it gets the socket. trio waits for bytes, and the
deadline is a cancel scope around everything. Three things are not obvious:

* Whether there is a caller. A health check connects and closes without a byte; it is no caller and must not
  count as a refusal (`probe`). A caller that sends nothing (`silent`) differs from one that begins and stops
  (`stalled`). OpenSSL does not distinguish these, so the first byte is peeked at before OpenSSL runs, and a
  byte that cannot begin a TLS record ends the handshake at once.
* When a client's handshake is over. With TLS 1.3 the client has finished before the server verifies its
  certificate: a refusal arrives as the first read, after `client_handshake` has returned. Only the relay can
  see it (`Transfer.tls_broke_first`).
* OpenSSL's reasons, which are texts: `_REASONS` names the known ones; any other text becomes the detail of
  `tls_error`. When OpenSSL refuses a peer it has already written its alert.

A step takes half a millisecond of arithmetic, or PIECE records of a peer that makes them small; `before_step`
is awaited before each one, so that other tasks can run.

No date is checked here: `certs.peer.verify_peer` verifies the chain right after the handshake.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from typing import Protocol

import trio
from OpenSSL import SSL, crypto

from agent.net.shortage import OUT_OF_RESOURCES
from agent.net.tls_records import (
    MOST_RECORDS,
    PIECE,
    MemoryConnection,
    PeerClosed,
    RecordReader,
    TooManyRecords,
)
from certs.error_queue import MALLOC_FAILURE

_HANDSHAKE_RECORD = 0x16  # the first byte of every TLS connection


class HandshakeReason(StrEnum):
    """Why there is no TLS connection."""

    PROBE = "probe"  # connected and closed without a byte: a TCP health check, no refusal
    SILENT = "silent"
    STALLED = "stalled"
    NOT_TLS = "not_tls"
    MALFORMED = "malformed_tls"
    FRAGMENTED = "fragmented_tls"  # in more records than any handshake needs
    NO_CERTIFICATE = "no_certificate"
    UNTRUSTED_CHAIN = "untrusted_chain"
    PROTOCOL = "protocol"  # no version or cipher in common
    PEER_REFUSED = "peer_refused"  # by an alert
    CLOSED = "closed_in_handshake"
    RESET = "reset_in_handshake"
    NO_RESOURCES = OUT_OF_RESOURCES  # here: OpenSSL has no memory
    TLS_ERROR = "tls_error"


_REASONS = {
    "http request": HandshakeReason.NOT_TLS,
    "https proxy request": HandshakeReason.NOT_TLS,
    "wrong version number": HandshakeReason.NOT_TLS,
    "unexpected message": HandshakeReason.MALFORMED,
    "data length too long": HandshakeReason.MALFORMED,
    "length mismatch": HandshakeReason.MALFORMED,
    "bad record type": HandshakeReason.MALFORMED,
    "decryption failed or bad record mac": HandshakeReason.MALFORMED,
    "peer did not return a certificate": HandshakeReason.NO_CERTIFICATE,
    "certificate verify failed": HandshakeReason.UNTRUSTED_CHAIN,
    "unsupported protocol": HandshakeReason.PROTOCOL,
    "version too low": HandshakeReason.PROTOCOL,
    "no shared cipher": HandshakeReason.PROTOCOL,
    "no suitable key share": HandshakeReason.PROTOCOL,
    "no suitable signature algorithm": HandshakeReason.PROTOCOL,
    "no shared signature algorithms": HandshakeReason.PROTOCOL,
}
_HOST_NAME = re.compile(r"[\x01-\x7f]{1,255}")
_ALERT = " alert "  # a part of every text about a received alert


class HandshakeFailed(Exception):
    """The handshake has failed: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: HandshakeReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


BeforeStep = Callable[[], Awaitable[None]]  # awaited before each step


async def no_wait() -> None:
    """Default `before_step`: return at once."""


class Waited(Protocol):
    """A caller whose bytes are waited for, within `scope`, which is cancelled if its slot is needed."""

    scope: trio.CancelScope

    def begin(self) -> None:
        """Note that the caller has sent bytes."""


class Unhurried:
    """A caller whose slot is never needed for another one."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()

    def begin(self) -> None:
        """Do nothing."""


async def server_handshake(
    sock: socket.socket,
    context: Callable[[], SSL.Context],
    deadline_seconds: float,
    before_step: BeforeStep = no_wait,
    caller: Waited | None = None,
) -> SSL.Connection:
    """Do the server's side of a handshake on a non-blocking socket. Raises HandshakeFailed.

    The socket stays open.

    `context` is called when the caller's first byte has come, which may be long after it has connected.
    """
    caller = caller or Unhurried()
    handshake, began = _Handshake(sock, before_step, serving=True), trio.current_time()
    caller.scope.deadline = began + deadline_seconds
    with caller.scope as patience:
        await handshake.wait_for_first_byte()
        caller.begin()
        connection = _over_memory(context())
        connection.set_accept_state()
        await handshake.drive(connection)
        if not patience.cancel_called:
            return connection
    if trio.current_time() < patience.deadline:
        raise handshake.too_late(trio.current_time() - began, ", and its place was needed")
    raise handshake.too_late(deadline_seconds)


async def client_handshake(
    sock: socket.socket,
    context: SSL.Context,
    server_name: str,
    deadline_seconds: float,
    before_step: BeforeStep = no_wait,
) -> SSL.Connection:
    """Do the client's side of a handshake with SNI `server_name`. Raises HandshakeFailed.

    The socket stays open.

    A name that SNI cannot express (RFC 6066 §3) is not sent: only mesh gateways need it.
    """
    connection = _over_memory(context)
    if _HOST_NAME.fullmatch(server_name):
        connection.set_tlsext_host_name(server_name.encode("ascii"))
    connection.set_connect_state()
    handshake = _Handshake(sock, before_step, serving=False)
    with trio.move_on_after(deadline_seconds):
        return await handshake.drive(connection)
    raise handshake.too_late(deadline_seconds)


def verified_chain(connection: SSL.Connection) -> tuple[bytes, ...]:
    """Return the chain OpenSSL verified, as DER: the peer's leaf first, a trusted root last.

    Empty if none.
    """
    chain = connection.get_verified_chain() or ()
    return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)


class _Handshake:
    """One attempt, and whether the peer has sent anything."""

    __slots__ = ("_before_step", "_records", "_serving", "_sock")

    def __init__(self, sock: socket.socket, before_step: BeforeStep, *, serving: bool) -> None:
        self._serving = serving
        self._sock = sock
        self._records = RecordReader(sock)
        self._before_step = before_step

    async def wait_for_first_byte(self) -> None:
        first = self._peek()
        while first is None:  # a quick caller has sent it already
            await trio.lowlevel.wait_readable(self._sock)
            first = self._peek()
        if not first:
            raise HandshakeFailed(HandshakeReason.PROBE, "closed without a byte")
        self._records.heard = True
        if first[0] != _HANDSHAKE_RECORD:
            detail = f"the first byte is 0x{first[0]:02x}, not a TLS handshake"
            raise HandshakeFailed(HandshakeReason.NOT_TLS, detail)

    def _peek(self) -> bytes | None:
        """Return the first byte, empty at the end of the stream; None while there is none."""
        try:
            return self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:  # reset, which is how some health checks close
            raise HandshakeFailed(HandshakeReason.PROBE, _system(error.errno)) from error

    async def drive(self, connection: MemoryConnection) -> SSL.Connection:
        await self._before_step()
        while not await self._step(connection):
            connection.bio_write(await self._next())
            await self._let_others_work()
        try:
            connection.attach(self._sock)
        except MemoryError as error:
            raise HandshakeFailed(HandshakeReason.NO_RESOURCES, str(error)) from error
        return connection

    async def _step(self, connection: MemoryConnection) -> bool:
        """Let OpenSSL read what it has, and send its output; return whether the handshake is over."""
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            over = False
        except MemoryError as error:
            raise HandshakeFailed(HandshakeReason.NO_RESOURCES, "no memory") from error
        except SSL.Error as error:
            with suppress(OSError):  # the alert may be lost
                self._sock.send(connection.said())
            raise _refused(error) from error
        else:
            over = True
        try:
            await self._send(connection.said())
        except HandshakeFailed:
            # A server's last words are session tickets, if any: OpenSSL, too, leaves it to the next read to
            # show that the client has gone.
            if not (over and self._serving):
                raise
        return over

    async def _next(self) -> bytes:
        try:
            return await self._records.next()
        except TooManyRecords as error:
            detail = f"not finished after {MOST_RECORDS} records"
            raise HandshakeFailed(HandshakeReason.FRAGMENTED, detail) from error
        except PeerClosed as error:
            raise HandshakeFailed(HandshakeReason.CLOSED, "the peer closed in mid-handshake") from error
        except OSError as error:
            raise HandshakeFailed(HandshakeReason.RESET, _system(error.errno)) from error

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError as error:
                raise HandshakeFailed(HandshakeReason.RESET, _system(error.errno)) from error

    async def _let_others_work(self) -> None:
        if self._records.taken % PIECE == 0:
            await trio.lowlevel.checkpoint()
        elif not self._records.waited:
            return
        self._records.waited = False
        await self._before_step()

    def too_late(self, seconds: float, besides: str = "") -> HandshakeFailed:
        if self._records.heard:
            return HandshakeFailed(HandshakeReason.STALLED, f"not finished after {seconds:.3g} s{besides}")
        return HandshakeFailed(HandshakeReason.SILENT, f"not a byte within {seconds:.3g} s{besides}")


def _over_memory(context: SSL.Context) -> MemoryConnection:
    try:
        return MemoryConnection(context)
    except (MemoryError, SSL.Error) as error:
        raise HandshakeFailed(HandshakeReason.NO_RESOURCES, "OpenSSL has no memory") from error


def _refused(error: SSL.Error) -> HandshakeFailed:
    texts = [text for _, _, text in error.args[0]] if error.args else []
    detail = "; ".join(texts) or "OpenSSL gave no reason"
    if MALLOC_FAILURE in texts:
        return HandshakeFailed(HandshakeReason.NO_RESOURCES, detail)
    for text in texts:
        if _ALERT in text:
            return HandshakeFailed(HandshakeReason.PEER_REFUSED, detail)
        if text in _REASONS:
            return HandshakeFailed(_REASONS[text], detail)
    return HandshakeFailed(HandshakeReason.TLS_ERROR, detail)


def _system(code: int | None) -> str:
    return os.strerror(errno.EIO if code is None else code)
