"""The listening sockets that systemd has handed over: their names decide which listener each of them is.

systemd.socket(5), `FileDescriptorName=`: `public`, or what systemd calls a socket of sidecar@.socket without
that setting, is the public listener; `upstream-NAME`, or `upstream-NAME@DATACENTER`, is that upstream's. Any
other socket is left alone and reported, for its callers wait in vain.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.bind import address_of
from upstreams.spec import Bind, LocalBind, Upstream

_PUBLIC = re.compile(r"public|sidecar@.*\.socket")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class SocketReason(StrEnum):
    """What is wrong with a socket of systemd."""

    UNUSED = "socket_unused"
    ELSEWHERE = "socket_elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketComplaint:
    """A socket that serves no caller, or not where callers look for it."""

    reason: SocketReason
    name: str
    address: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.name!r} of systemd at {self.address}: {self.detail}"


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    sock: socket.socket

    @property
    def address(self) -> str:
        known = self.sock.family in _FAMILIES
        return str(address_of(self.sock)) if known else self.sock.family.name

    def complaint(self, reason: SocketReason, detail: str) -> SocketComplaint:
        return SocketComplaint(reason=reason, name=self.name, address=self.address, detail=detail)


class InheritedSockets:
    """Sockets by name. They stay open as long as the process; a listener gets duplicates."""

    def __init__(self, named: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._all = tuple(_Named(name, sock) for name, sock in named)
        self._usable = tuple(one for one in self._all if _accepts(one.sock))

    def named(self) -> list[tuple[str, socket.socket]]:
        """Return every socket with its name."""
        return [(one.name, one.sock) for one in self._all]

    @property
    def public(self) -> tuple[socket.socket, ...]:
        """The sockets of the public listener."""
        return tuple(one.sock for one in self._public())

    def of_upstreams(self, upstreams: Sequence[Upstream]) -> Mapping[Bind, tuple[socket.socket, ...]]:
        """Return the sockets of each upstream that has some, by its bind."""
        return {bind: tuple(one.sock for one in found) for bind, found in self._by_bind(upstreams).items()}

    def complaints(self, public: Address | None, upstreams: Sequence[Upstream]) -> list[SocketComplaint]:
        """Return what is wrong, where the public listener (None for none) and the upstreams are wanted."""
        groups = [(self._public(), public)] if public is not None else []
        wanted = {upstream.bind: address(upstream.bind) for upstream in upstreams}
        groups += [(found, wanted[bind]) for bind, found in self._by_bind(upstreams).items()]
        used = {id(one) for found, _ in groups for one in found}
        return [
            *(
                one.complaint(SocketReason.UNUSED, _why_unused(one))
                for one in self._all
                if id(one) not in used
            ),
            *(complaint for found, place in groups for complaint in _elsewhere(found, place)),
        ]

    def _public(self) -> list[_Named]:
        return [one for one in self._usable if _PUBLIC.fullmatch(one.name)]

    def _by_bind(self, upstreams: Sequence[Upstream]) -> Mapping[Bind, list[_Named]]:
        found: dict[Bind, list[_Named]] = {}
        for one in self._usable:
            meant = [upstream.bind for upstream in upstreams if one.name == socket_name(upstream)]
            there = [bind for bind in meant if _at(one.sock, address(bind))]
            for bind in (there or meant)[:1]:
                found.setdefault(bind, []).append(one)
        return found


def socket_name(upstream: Upstream) -> str:
    """Return the FileDescriptorName= of an upstream's socket."""
    target = upstream.destination
    where = "" if target.datacenter is None else f"@{target.datacenter}"
    return f"upstream-{target.name}{where}"


def address(bind: Bind) -> Address:
    """Return an upstream's bind as an address."""
    return TcpAddress(bind.host, bind.port) if isinstance(bind, LocalBind) else UnixAddress(bind.path)


def _accepts(sock: socket.socket) -> bool:
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _at(sock: socket.socket, place: Address) -> bool:
    """Return whether a socket is at that port, on whatever address, or at that path."""
    there = address_of(sock)
    if isinstance(there, TcpAddress) and isinstance(place, TcpAddress):
        return place.port in (0, there.port)
    if isinstance(there, UnixAddress) and isinstance(place, UnixAddress):
        return Path(there.path).resolve() == Path(place.path).resolve()
    return False


def _elsewhere(found: Sequence[_Named], place: Address) -> list[SocketComplaint]:
    if any(_at(one.sock, place) for one in found):
        return []
    detail = f"callers look for it at {place}; give the socket unit that address, or another name"
    return [one.complaint(SocketReason.ELSEWHERE, detail) for one in found]


def _why_unused(one: _Named) -> str:
    if not _accepts(one.sock):
        return "it is no listening stream socket"
    return "FileDescriptorName= is neither public, with a public listener, nor upstream-NAME of an upstream"
