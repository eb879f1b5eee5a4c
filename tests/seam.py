"""The seam between trio's tasks and the relay, with assertions: no task touches a socket the relay holds.

`install` wraps what the agent does to sockets, TLS connections and waits, for the whole test process. While
the relay holds a connection, from taking it over until it has let go of it, any such call from elsewhere is a
bug and raises `Trespass`. Nothing of it is in the agent itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import trio
from OpenSSL import SSL

from agent.relay.relay import Relay

_PLAIN = ("close", "recv", "recv_into", "send", "sendall", "sendmsg", "shutdown", "setsockopt", "setblocking")
_TLS = ("do_handshake", "recv", "recv_into", "renegotiate", "send", "sendall", "shutdown")
_WAITS = ("wait_readable", "wait_writable")


class Trespass(AssertionError):
    """A socket was touched by one who does not hold it."""


class Seam:
    """Which descriptors relays hold at this moment, and whether one of them is at work."""

    def __init__(self) -> None:
        self.held: dict[int, object] = {}
        self.handed_over = 0
        self._inside = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The relay is at work."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def check(self, fd: int, call: str) -> None:
        """Raise Trespass if other code than the relay touches what it holds."""
        if fd in self.held and not self._inside:
            raise Trespass(f"{call} on descriptor {fd}, which the relay holds")


def install() -> Seam:
    """Wrap everything, once in a process."""
    seam = Seam()
    _wrap_relay(seam)
    for name in _PLAIN:
        setattr(socket.socket, name, _checked(seam, getattr(socket.socket, name), f"socket.{name}"))
    for name in _TLS:
        setattr(SSL.Connection, name, _checked(seam, getattr(SSL.Connection, name), f"Connection.{name}"))
    for name in _WAITS:
        setattr(trio.lowlevel, name, _checked(seam, getattr(trio.lowlevel, name), name))
    return seam


def _wrap_relay(seam: Seam) -> None:
    begin, release, turn = Relay._begin, Relay._release, Relay._turn

    def _begin(self: Relay, run: Any) -> bool:
        for fd in run.fds:
            if fd in seam.held:
                raise Trespass(f"descriptor {fd} is handed over, and the relay holds it already")
            seam.held[fd] = run
        seam.handed_over += 1
        with seam.inside():
            return begin(self, run)

    def _release(self: Relay, run: Any) -> None:
        release(self, run)
        for fd in run.fds:
            seam.held.pop(fd, None)

    def _turn(self: Relay, seconds: float = 0) -> int:
        with seam.inside():
            return turn(self, seconds)

    for name, wrapped in (("_begin", _begin), ("_release", _release), ("_turn", _turn)):
        setattr(Relay, name, wrapped)


def _is_in_memory(of: object) -> bool:
    return isinstance(of, SSL.Connection) and not hasattr(of, "fileno")


def _checked(seam: Seam, call: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(call)
    def checked(of: Any, *args: Any, **kwargs: Any) -> Any:
        # A TLS connection in memory has no descriptor, and so is nobody's to hold.
        if seam.held and (isinstance(of, int) or not _is_in_memory(of)):
            seam.check(of if isinstance(of, int) else of.fileno(), name)
        return call(of, *args, **kwargs)

    return checked
