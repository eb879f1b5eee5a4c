"""Our HTTP connection to the app, reused for one exchange after another while all is in order.

A request with a body is the last one on its connection, which `Connection: close` tells the app. An app may
answer without having read the body, and then take its bytes for the next request, which no permission has
judged. An app that has read the body looks the same from outside as one that has not; but after `close` no
app may read another request (RFC 9112 §9.6). docs/http.md#bodies-that-an-app-may-not-read has what that
costs.
"""

from __future__ import annotations

import socket

from agent.relay.close import reset
from agent.relay.splice import Progress
from agent.relay.streams import PlainStream


class AppConnection:
    """A connected socket and the state of the exchange on it. The caller closes it."""

    __slots__ = ("answered", "keep_alive", "sent", "stream", "used")

    def __init__(self, sock: socket.socket, progress: Progress) -> None:
        self.stream = PlainStream(sock, progress)
        self.used = False  # an earlier exchange has used the connection
        self.sent = False  # the request was sent completely
        self.answered = False  # the answer has come completely, with no byte after it
        self.keep_alive = False  # neither side ends the connection with this exchange

    @property
    def idle(self) -> bool:
        """Whether the last exchange has ended in order, and nothing has come since."""
        return self.sent and self.answered and self.keep_alive and self.stream.quiet()

    def next_exchange(self) -> None:
        """Begin another exchange on an idle connection."""
        self.used = True
        self.sent = self.answered = self.keep_alive = False

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send a part of a request; `last`: it is complete. Raises StreamBroken."""
        await self.stream.send(data)
        self.sent = last

    def send_nowait(self, data: bytes) -> bytes | None:
        """Send a whole request; return the rest that did not go without waiting, None after a failure."""
        sent = self.stream.send_at_once(data)
        if sent is None:
            return None
        self.sent = sent == len(data)
        return data[sent:]

    def close(self) -> None:
        """Close in order after a complete exchange, else by a reset, which ends no request."""
        if self.sent and self.answered:
            self.stream.sock.close()
        else:
            reset(self.stream.sock)
