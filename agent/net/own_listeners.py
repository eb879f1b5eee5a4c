"""The addresses of our own listeners, so that no connection of ours ends at one of them and loops.

Addresses are resolved only if the ports are equal, which is rare.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.base.address import ANY_ADDRESS, ANY_ADDRESS_6, TcpAddress, UnixAddress, is_local, literal
from agent.net.bind import Bound, address_of
from agent.net.dial import SockAddr
from upstreams.spec import LOOPBACK

_CONNECTED = {
    ANY_ADDRESS: LOOPBACK,
    ANY_ADDRESS_6: "::1",
}  # where a connection to the unspecified address ends


_File = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class _Listener:
    """One of our listeners. `meshed`: it serves callers of the mesh, so that an upstream may dial it."""

    host: str  # or the path of a unix socket
    purpose: str
    meshed: bool
    sock: socket.socket | None = None  # the listener is closed when this socket is
    file: _File | None = None  # of a unix socket, as bound: a hard link or a bind mount leads there too

    @property
    def open(self) -> bool:
        return self.sock is None or self.sock.fileno() != -1


class OwnListeners:
    """The listeners of one process."""

    def __init__(self) -> None:
        self._at: dict[int, list[_Listener]] = {}  # by port; unix sockets at 0

    def add(self, bounds: Sequence[Bound], *, meshed: bool = False) -> None:
        """Add listeners, until their sockets are closed."""
        for bound in bounds:
            address = address_of(bound.sock)
            if isinstance(address, TcpAddress):
                self._add(address.port, _Listener(address.host, bound.purpose, meshed, bound.sock))
            else:
                file = _file(address.path)
                self._add(0, _Listener(address.path, bound.purpose, meshed, bound.sock, file))

    def reserve(self, address: TcpAddress | UnixAddress, purpose: str) -> None:
        """Add an address at which another process of ours listens."""
        if isinstance(address, UnixAddress):
            self._add(0, _Listener(address.path, purpose, meshed=False))
        elif address.port:
            self._add(address.port, _Listener(address.host, purpose, meshed=False))

    def of_app(self, family: int, place: SockAddr) -> str:
        """Return the purpose of our listener at the app's address; empty if there is none."""
        return self._found(family, place, meshed=True)

    def of_upstreams(self, family: int, place: SockAddr) -> str:
        """Return the purpose of our listener at an upstream's address, unless mesh callers may use it."""
        return self._found(family, place, meshed=False)

    def _add(self, port: int, listener: _Listener) -> None:
        self._at[port] = [*(one for one in self._at.get(port, ()) if one.open), listener]

    def _found(self, family: int, place: SockAddr, *, meshed: bool) -> str:
        port = place[1] if isinstance(place, tuple) else 0
        for listener in self._at.get(port, ()) if isinstance(port, int) else ():
            if listener.open and (meshed or not listener.meshed) and _meet(family, place, listener):
                return listener.purpose
        return ""


def _meet(family: int, place: SockAddr, listener: _Listener) -> bool:
    if family == socket.AF_UNIX:
        there = _file(place) if isinstance(place, str) else None
        return there is not None and there == (listener.file or _file(listener.host))
    host, listening = literal(str(place[0])) or "", literal(listener.host) or listener.host
    host = _CONNECTED.get(host, host)
    if host == listening:
        return True
    takes_in = listening == ANY_ADDRESS_6 or (listening == ANY_ADDRESS and ":" not in host)
    return takes_in and is_local(host)


def _file(path: str) -> _File | None:
    """Return which file is at a path; None if there is none, or there can be none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
