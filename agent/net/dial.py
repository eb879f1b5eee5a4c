"""Dials the legs of connections, and sets their socket options.

A leg is a non-blocking stdlib socket, TCP or unix. The caller that holds it closes it.

Dialling stays by hand because `trio.open_tcp_stream` leaves no place between a name's resolution and the
connect, where our own listeners are refused, and takes 0.62 ms of CPU for an address of this machine where
`dial` takes 0.08.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import lru_cache
from itertools import zip_longest
from typing import TypeAlias

import trio

from agent.base.address import Address, TcpAddress
from agent.net.shortage import OUT_OF_RESOURCES, first_kept
from agent.relay.close import reset

_KEEPALIVE_IDLE = 60  # seconds; with the two below a vanished peer is noticed within two minutes
_KEEPALIVE_INTERVAL = 15
_KEEPALIVE_PROBES = 4
_BUSY_RETRY = 0.01  # seconds between tries at a unix socket whose backlog is full
_REMEMBERED = 512  # addresses that are cached as no names
_DONE = (0, errno.EISCONN)
_BEGUN = (*_DONE, errno.EALREADY, errno.EAGAIN)

HEAD_START = 0.25  # seconds before the next address of a name is tried as well (RFC 8305 §8)

SockAddr: TypeAlias = str | tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]  # of getaddrinfo
Shun: TypeAlias = Callable[
    [int, SockAddr], str
]  # returns the purpose of our own listener there, empty if none
_Place = tuple[int, SockAddr]


class DialReason(StrEnum):
    """Why an address could not be reached."""

    REFUSED = "connect_refused"
    TIMEOUT = "connect_timeout"
    UNREACHABLE = "connect_unreachable"
    UNRESOLVED = "name_unresolved"
    BAD_ADDRESS = "bad_address"  # the address is malformed
    NO_SOCKET = "no_such_socket"
    NOT_PERMITTED = "connect_not_permitted"
    NO_RESOURCES = OUT_OF_RESOURCES
    OWN_LISTENER = "own_listener"  # one of our own listeners is there: the connection would loop
    ITSELF = "connected_to_itself"  # no socket listens there, and the kernel chose the same port for our end
    FAILED = "connect_failed"


_REASONS = {
    errno.ECONNREFUSED: DialReason.REFUSED,
    errno.ECONNRESET: DialReason.REFUSED,
    errno.ETIMEDOUT: DialReason.TIMEOUT,
    errno.EHOSTUNREACH: DialReason.UNREACHABLE,
    errno.ENETUNREACH: DialReason.UNREACHABLE,
    errno.ENETDOWN: DialReason.UNREACHABLE,
    errno.EHOSTDOWN: DialReason.UNREACHABLE,
    errno.ENOENT: DialReason.NO_SOCKET,
    errno.EACCES: DialReason.NOT_PERMITTED,
    errno.EPERM: DialReason.NOT_PERMITTED,
    errno.EMFILE: DialReason.NO_RESOURCES,
    errno.ENFILE: DialReason.NO_RESOURCES,
    errno.ENOBUFS: DialReason.NO_RESOURCES,
    errno.ENOMEM: DialReason.NO_RESOURCES,
    errno.EADDRNOTAVAIL: DialReason.NO_RESOURCES,  # no local port is free
}


class DialFailed(Exception):
    """The address could not be reached: `reason` for machines, `detail` for a person."""

    def __init__(self, reason: DialReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def nothing(_family: int, _place: SockAddr) -> str:
    """Default `shun`: any address may be dialled."""
    return ""


async def dial(
    address: Address, timeout_seconds: float, preamble: bytes = b"", shun: Shun = nothing
) -> socket.socket:
    """Connect within the time, name resolution included, and send `preamble`. Raises DialFailed.

    The addresses of a name are tried one after another, each with a head start. `shun` returns which
    addresses must not be dialled.
    """
    begun = begin(address, shun)
    if begun is not None and begun.connected and not preamble:
        return begun.sock  # connected at once, as on one machine: no deadline is needed
    return await finish(begun, address, timeout_seconds, preamble, shun)


def begin(address: Address, shun: Shun = nothing) -> Begun | None:
    """Begin to connect, without a wait; None for a name. Raises DialFailed."""
    place = _place(address)
    return None if place is None else Begun(place, address, shun)


async def finish(
    begun: Begun | None, address: Address, timeout_seconds: float, preamble: bytes = b"", shun: Shun = nothing
) -> socket.socket:
    """Do what `begin` has left to do, within the time. Raises DialFailed."""
    with trio.move_on_after(timeout_seconds):
        sock = await (_by_name(address, shun) if begun is None else begun.finish())
        if preamble:
            await _send_preamble(sock, preamble, address)
        return sock
    raise DialFailed(DialReason.TIMEOUT, f"{address}: no answer within {timeout_seconds:g} s")


def took_at_once(sock: socket.socket, preamble: bytes) -> bool:
    """Return whether a new connection has taken the first bytes whole, as each with an empty buffer does."""
    try:
        return sock.send(preamble) == len(preamble)
    except OSError:
        return False


def tune(sock: socket.socket) -> None:
    """Set TCP_NODELAY, and keepalive to notice a peer that vanished; no effect on unix sockets."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def remote(sock: socket.socket) -> str:
    """Return the peer's address, for a person."""
    try:
        name = sock.getpeername()
    except OSError as error:  # reset before we looked
        return f"gone ({errno.errorcode.get(error.errno or 0, 'EIO')})"
    return address_text(name)


def address_text(address: object) -> str:
    """Return the same by what accept(2) has returned."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


@lru_cache(maxsize=_REMEMBERED)
def _place(address: Address) -> _Place | None:
    """Return the socket address of a literal; None for a name.

    The resolver would take fifty times as long.
    """
    if not isinstance(address, TcpAddress):
        return socket.AF_UNIX, address.path
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(
            OSError, ValueError
        ):  # not of this family, or with a zone, which is the resolver's matter
            socket.inet_pton(family, address.host)
            return family, (address.host, address.port)
    return None


async def _by_name(address: Address, shun: Shun) -> socket.socket:
    assert isinstance(address, TcpAddress)  # `_place` has handled unix sockets
    if not 0 <= address.port <= 65535:  # the resolver would take it modulo 65536
        raise DialFailed(DialReason.BAD_ADDRESS, f"{address}: there is no such port")
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (
        OSError,
        ValueError,
        OverflowError,
    ) as error:  # gaierror; a label too long for DNS; no text, no port
        raise DialFailed(DialReason.UNRESOLVED, f"{address}: {error}") from error
    places = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    if len(places) == 1:
        return await Begun(places[0], address, shun).finish()
    return await _Race(address, shun).run(_alternating(places))


async def _send_preamble(sock: socket.socket, data: bytes, address: Address) -> None:
    """Send the first bytes. Raises DialFailed with the socket closed."""
    try:
        while data:
            await trio.lowlevel.wait_writable(sock)
            data = data[sock.send(data) :]
    except OSError as error:
        sock.close()
        raise _failure(error.errno, address) from error
    except BaseException:
        sock.close()
        raise


def _alternating(places: Sequence[_Place]) -> list[_Place]:
    """Return the addresses with families taking turns, the preferred one first (RFC 8305 §4)."""
    by_family: dict[int, list[_Place]] = {}
    for place in places:
        by_family.setdefault(place[0], []).append(place)
    turns = zip_longest(*by_family.values())
    return [place for turn in turns for place in turn if place is not None]


class _Race:
    """Connects to several addresses of a name, so that a dead one costs a moment only (RFC 8305)."""

    def __init__(self, address: Address, shun: Shun) -> None:
        self._address = address
        self._shun = shun
        self._winner: socket.socket | None = None
        self._failure = DialFailed(DialReason.UNRESOLVED, f"{address}: the name has no address")

    async def run(self, places: Sequence[_Place]) -> socket.socket:
        """Return the first socket that connects. Raises the last failure if none does."""
        try:
            async with trio.open_nursery() as nursery:
                for place in places:
                    failed = trio.Event()
                    nursery.start_soon(self._try, place, failed, nursery)
                    with trio.move_on_after(HEAD_START):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:  # it connected just as the time was up
                self._winner.close()
            raise
        if self._winner is None:
            raise self._failure
        return self._winner

    async def _try(self, place: _Place, failed: trio.Event, nursery: trio.Nursery) -> None:
        try:
            sock = await Begun(place, self._address, self._shun).finish()
        except DialFailed as failure:
            self._failure = failure
            failed.set()
            return
        if self._winner is not None:
            sock.close()
            return
        self._winner = sock
        nursery.cancel_scope.cancel()


class Begun:
    """A connection that is being made: started at once, and finished by waiting. Raises DialFailed.

    If it is `connected`, `sock` is ready; otherwise `finish` must be called, which closes it if it fails.
    """

    __slots__ = ("_address", "_sockaddr", "connected", "sock")

    def __init__(self, place: _Place, address: Address, shun: Shun) -> None:
        family, self._sockaddr = place
        self._address = address
        if ours := shun(family, self._sockaddr):
            raise DialFailed(DialReason.OWN_LISTENER, f"{address}: our own listener for {ours} is there")
        try:
            self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise _failure(error.errno, address) from error
        if self.sock.fileno() >= first_kept():
            self.sock.close()
            raise _failure(errno.EMFILE, address)
        try:
            code = self.sock.connect_ex(self._sockaddr)
        except (OSError, ValueError, OverflowError) as error:  # a path too long for a socket; no port
            self.sock.close()
            raise DialFailed(DialReason.BAD_ADDRESS, f"{address}: {error}") from error
        if code == errno.EINPROGRESS:
            code = self.sock.connect_ex(self._sockaddr)  # on one machine it is done by now, without a wait
        self.connected = code in _DONE
        if code not in _BEGUN:
            self.sock.close()
            raise _failure(code, address)
        if self.connected:
            self._settle()

    async def finish(self) -> socket.socket:
        if self.connected:
            return self.sock
        try:
            code = await self._answer()
        except BaseException:
            self.sock.close()
            raise
        if code not in _DONE:
            self.sock.close()
            raise _failure(code, self._address)
        self._settle()
        return self.sock

    def _settle(self) -> None:
        try:
            tune(self.sock)
            itself = self._is_itself()
        except OSError as error:  # reset as soon as it was made
            self.sock.close()
            raise _failure(error.errno, self._address) from error
        if itself:
            reset(self.sock)  # an orderly end would keep the port in TIME_WAIT for a minute
            raise DialFailed(DialReason.ITSELF, f"{self._address}: nothing listens there")

    def _is_itself(self) -> bool:
        """Return whether both ends are one socket: a simultaneous open (RFC 9293 §3.5) of a chosen port."""
        if isinstance(self._sockaddr, str) or self.sock.getsockname()[1] != self._sockaddr[1]:
            return False
        return bool(self.sock.getsockname() == self.sock.getpeername())

    async def _answer(self) -> int:
        """Return the result of the connect, as an errno."""
        # EAGAIN means that a unix socket's backlog is full, for which the kernel offers no wait.
        while (code := self.sock.connect_ex(self._sockaddr)) == errno.EAGAIN:  # noqa: ASYNC110 - see above
            await trio.sleep(_BUSY_RETRY)
        if code == errno.EALREADY:
            await trio.lowlevel.wait_writable(self.sock)
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return code


def _failure(code: int | None, address: Address) -> DialFailed:
    code = errno.EIO if code is None else code
    return DialFailed(_REASONS.get(code, DialReason.FAILED), f"{address}: {os.strerror(code)}")
