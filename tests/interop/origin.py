"""The workload behind the mesh: plain TCP, sends back what it gets in upper case.

Whoever closes its half after the word `bye` hears GOODBYE on the other half, which is still open.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GOODBYE = b"<end>"
SECONDS = 20.0


class Origin(socketserver.ThreadingTCPServer):
    """Counts whom it let in, and what they sent."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Shout)
        self.accepted = 0
        self.received = 0  # bytes; Envoy dials its app before it has heard anything

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self.socket.getsockname()[1])

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept one caller."""
        found = super().get_request()
        self.accepted += 1
        return found


class _Shout(socketserver.BaseRequestHandler):
    server: Origin

    def handle(self) -> None:
        last = b""
        try:
            while part := self.request.recv(65536):
                self.server.received += len(part)
                self.request.sendall(part.upper())
                last = part
            if last.endswith(b"bye"):
                self.request.sendall(GOODBYE)
        except ConnectionError:
            return  # a caller that was cut off; whoever did it is asked by the test


@contextmanager
def origin() -> Iterator[Origin]:
    """A running workload."""
    with Origin() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(SECONDS)


def ask(port: int, sends: bytes) -> bytes:
    """Plain TCP: send, close our half, read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        sock.sendall(sends)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while part := sock.recv(65536):
            received += part
        return received
