"""Apps that answer lines, and how web talks to them through its upstreams."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

SECONDS = 10.0  # for one exchange


class App(socketserver.ThreadingTCPServer):
    """An app: answers every line with its own name and the line."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Lines)
        self.name = name
        self.accepted = 0
        self.port = int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count, then serve."""
        self.accepted += 1
        super().process_request(request, client_address)


class _Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, App)
        with suppress(ConnectionError):  # a conversation may be cut: that is what some tests are about
            for line in self.rfile:
                self.wfile.write(f"{self.server.name} ".encode() + line)


class Conversation:
    """One connection of web's own to one of its upstreams."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)

    def ask(self, text: str) -> str:
        """What the app answers; empty when the connection has ended."""
        self._socket.sendall(f"{text}\n".encode())
        return self._line()

    def ended(self) -> bool:
        """Wait until the other side has ended it."""
        return self._line() == ""

    def _line(self) -> str:
        received = b""
        try:
            while not received.endswith(b"\n"):
                if not (more := self._socket.recv(4096)):
                    return ""
                received += more
        except ConnectionError:
            return ""
        return received.decode().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def ask(port: int, text: str = "hello") -> str:
    """One question on a connection of its own; empty when it was refused."""
    try:
        with Conversation(port) as conversation:
            return conversation.ask(text)
    except ConnectionError:
        return ""


class Traffic:
    """Requests one after the other, each on a connection of its own, until told to stop."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._stop = threading.Event()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            with self._asking:
                self.answers[ask(self._port)] += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No request is under way during the block."""
        with self._asking:
            yield

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


AnyApp = TypeVar("AnyApp", bound=socketserver.TCPServer)


@contextmanager
def serving(app: AnyApp) -> Iterator[AnyApp]:
    """The app in a thread of its own."""
    thread = threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    with app:
        thread.start()
        yield app
        app.shutdown()
    thread.join()
