"""A link between datacenters for the connections of services: it carries them until it is cut.

Stands before one sidecar, at the address the others have of it. Cut, it breaks off what it carries; who dials
is refused, or hears nothing at all, as from behind a router that is gone.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from typing import Self

Address = tuple[str, int]

_FULL = 0.2  # seconds: on loopback a connection that is not made by then is not made at all


class Link:
    """Listens `at`, leads `to`."""

    def __init__(self, at: Address, to: Address) -> None:
        self.at = at
        self._to = to
        self._server: _Server | None = None
        self._hole: list[socket.socket] = []
        self.heal()

    def cut(self, *, silently: bool) -> None:
        """Until it is healed. `silently`: no dial is answered."""
        if self._server is not None:
            self._server.end()
            self._server = None
        if silently:
            self._hole = _hole(self.at)

    def heal(self) -> None:
        """Carry connections again."""
        for sock in self._hole:
            sock.close()
        self._hole = []
        if self._server is None:
            self._server = _Server(self.at, self._to)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut(silently=False)
        for sock in self._hole:
            sock.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, at: Address, to: Address) -> None:
        super().__init__(at, _Carrier)
        self.to = to
        self.carried: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def end(self) -> None:
        """Refuse new connections, and reset the open ones."""
        self.shutdown()
        self._thread.join()
        for sock in tuple(self.carried):
            _break(sock)
        self.server_close()


class _Carrier(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server, near = self.server, self.request
        assert isinstance(server, _Server)
        with suppress(OSError), socket.create_connection(server.to) as far:
            server.carried |= {near, far}
            back = threading.Thread(target=_carry, args=(far, near))
            back.start()
            _carry(near, far)
            back.join()
            server.carried -= {near, far}


def _carry(come: socket.socket, go: socket.socket) -> None:
    """One direction, to its end."""
    try:
        while data := come.recv(1 << 16):
            go.sendall(data)
        go.shutdown(socket.SHUT_WR)
    except OSError:
        _break(come)
        _break(go)


def _break(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _hole(at: Address) -> list[socket.socket]:
    """A listener with no room in its queue, and what fills it: the kernel drops every further SYN."""
    listener = socket.create_server(at, backlog=0)
    held = [listener]
    while True:
        caller = socket.socket()
        caller.settimeout(_FULL)
        held.append(caller)
        try:
            caller.connect(at)
        except TimeoutError:
            return held
