"""Our side of an HTTP connection to the app: kept for one exchange after the other while it is in order."""

from __future__ import annotations

import socket

from agent.relay.close import reset
from agent.relay.splice import Progress
from agent.relay.streams import PlainStream


class AppConnection:
    """A connected socket, and how far the exchange on it has come. Whoever made it closes it."""

    __slots__ = ("heard", "sent", "stream", "used")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.stream = PlainStream(sock, progress)
        self.used = False  # it has served an exchange before this one
        self.sent = False  # the request, to its end
        self.heard = False  # the answer, to its end and nothing beyond, from an app that goes on

    @property
    def idle(self) -> bool:
        """Whether an exchange has ended in order: nothing half sent, nothing said beyond the answer."""
        return self.sent and self.heard and self.stream.quiet()

    def next_exchange(self) -> None:
        """Begin another one on an idle connection."""
        self.used = True
        self.sent = self.heard = False

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send this part of a request; raise StreamBroken. One that is cut short is never made up for."""
        await self.stream.send(data)
        self.sent = last

    def close(self) -> None:
        """In order if it is idle, else with a reset: the app must not take half a request for a whole one."""
        if self.idle:
            self.stream.sock.close()
        else:
            reset(self.stream.sock)
