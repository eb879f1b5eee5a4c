"""Our side of an HTTP connection to the app: kept for one exchange after the other while it is in order.

A request with a body is the last one on its connection, and says so to the app (`Connection: close`). An app
may answer without having read the body, and take its bytes for the next request: no rule has judged that one.
From the outside nothing tells an app that has read them from one that has not; but after `close` no app may
read another request (RFC 9112 §9.6). `docs/http.md` has what that costs.
"""

from __future__ import annotations

import socket

from agent.relay.close import reset
from agent.relay.splice import Progress
from agent.relay.streams import PlainStream


class AppConnection:
    """A connected socket, and how far the exchange on it has come. Whoever made it closes it."""

    __slots__ = ("heard", "kept", "sent", "stream", "used")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.stream = PlainStream(sock, progress)
        self.used = False  # it has served an exchange before this one
        self.sent = False  # the request, to its end
        self.heard = False  # the answer, to its end and nothing beyond
        self.kept = False  # neither side has said that it ends here

    @property
    def idle(self) -> bool:
        """Whether an exchange has ended in order: nothing half sent, nothing said beyond the answer."""
        return self.sent and self.heard and self.kept and self.stream.quiet()

    def next_exchange(self) -> None:
        """Begin another one on an idle connection."""
        self.used = True
        self.sent = self.heard = self.kept = False

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send this part of a request; raise StreamBroken. One that is cut short is never made up for."""
        await self.stream.send(data)
        self.sent = last

    def close(self) -> None:
        """In order after a whole exchange, else with a reset, so that half a request is not taken for one."""
        if self.sent and self.heard:
            self.stream.sock.close()
        else:
            reset(self.stream.sock)
