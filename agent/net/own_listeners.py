"""The addresses of our own listeners, so that no connection of ours ends at one of them and loops.

Addresses are resolved only if the ports are equal, which is rare.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
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


@dataclass(frozen=True, slots=True)
class _Listener:
    """One of our listeners. `meshed`: it serves callers of the mesh, so that an upstream may dial it."""

    host: str  # or the path of a unix socket
    purpose: str
    meshed: bool
    sock: socket.socket | None = None  # the listener is closed when this socket is

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
                self._add(0, _Listener(address.path, bound.purpose, meshed, bound.sock))

    def reserve(self, address: TcpAddress | UnixAddress, purpose: str) -> None:
        """Add an address at which another process of ours listens."""
        if isinstance(address, TcpAddress) and address.port:
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
            if listener.open and (meshed or not listener.meshed) and _meet(family, place, listener.host):
                return listener.purpose
        return ""


def _meet(family: int, place: SockAddr, ours: str) -> bool:
    if family == socket.AF_UNIX:
        with suppress(OSError, ValueError):  # the path does not exist, or cannot
            return isinstance(place, str) and Path(place).samefile(ours)
        return False
    host, listening = literal(str(place[0])) or "", literal(ours) or ours
    host = _CONNECTED.get(host, host)
    if host == listening:
        return True
    takes_in = listening == ANY_ADDRESS_6 or (listening == ANY_ADDRESS and ":" not in host)
    return takes_in and is_local(host)
