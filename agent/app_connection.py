"""Our side of an HTTP connection to the app: kept for one exchange after the other while it is in order."""

from __future__ import annotations

import socket

import h11

from agent.http_streams import PlainStream
from agent.legs import reset
from agent.splice import Progress

MAX_ANSWER_HEAD = 128 * 1024  # bytes; the app is ours, and its cookies are many


class AppConnection:
    """A connected socket and its HTTP state. Whoever made it closes it."""

    __slots__ = ("_sending", "http", "stream", "used")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.stream = PlainStream(sock, progress)
        self.http = _client()
        self.used = False  # it has served an exchange before this one
        self._sending = False

    @property
    def idle(self) -> bool:
        """Whether an exchange has ended in order: nothing half sent, nothing said beyond the answer."""
        ended = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        return ended and not self._sending and self.http.trailing_data == (b"", False) and self.stream.quiet()

    def next_exchange(self) -> None:
        """Begin another one on an idle connection."""
        self.http = _client()
        self.used = True

    async def send(self, *events: h11.Event) -> None:
        """Send these parts of a request; raise StreamBroken. One that is cut short is never made up for."""
        self._sending = True
        await self.stream.send(b"".join(filter(None, map(self.http.send, events))))
        self._sending = False

    async def receive(self) -> bytes:
        """Let the next bytes, or the end, be parsed; raise StreamBroken. Returns them too."""
        data = await self.stream.receive()
        self.http.receive_data(data)
        return data

    def close(self) -> None:
        """In order if it is idle, else with a reset: the app must not take half a request for a whole one."""
        if self.idle:
            self.stream.sock.close()
        else:
            reset(self.stream.sock)


def _client() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEAD)
