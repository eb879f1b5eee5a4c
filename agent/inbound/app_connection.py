"""Our HTTP connections to the app: one is reused for one exchange after another while all is in order.

A request with a body is the last one on its connection, which `Connection: close` tells the app. An app may
answer without having read the body, and then take its bytes for the next request, which no permission has
judged. An app that has read the body looks the same from outside as one that has not; but after `close` no
app may read another request (RFC 9112 §9.6). docs/http.md#bodies-that-an-app-may-not-read has what that
costs.
"""

from __future__ import annotations

import socket

from agent.connections.connection import Connection
from agent.inbound.http_service import HttpService
from agent.net.dial import Begun, DialFailed, begin, dial, finish, took_at_once
from agent.relay.close import reset
from agent.relay.splice import Progress
from agent.relay.streams import PlainStream


class AppConnection:
    """A connected socket and the state of the exchange on it. The caller closes it."""

    __slots__ = ("answered", "keep_alive", "last", "sent", "stream", "used")

    def __init__(self, sock: socket.socket, progress: Progress, *, last: bool) -> None:
        """`last`: the first exchange has a body, and no other follows."""
        self.stream = PlainStream(sock, progress)
        self.last = last  # of the exchanges on this connection, whatever the app says
        self.used = False  # an earlier exchange has used the connection
        self.sent = False  # the request was sent completely
        self.answered = False  # the answer has come completely, with no byte after it
        self.keep_alive = False  # neither side ends the connection with this exchange

    @property
    def idle(self) -> bool:
        """Whether the present exchange has ended in order, another may follow, and nothing has come since."""
        whole = self.sent and self.answered and self.keep_alive
        return whole and not self.last and self.stream.quiet()

    def next_exchange(self, *, last: bool) -> None:
        """Begin another exchange on an idle connection; `last`: it has a body."""
        self.used, self.last = True, last
        self.sent = self.answered = self.keep_alive = False

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send a part of a request; `last`: it is complete. Raises StreamBroken."""
        await self.stream.send(data)
        self.sent = last

    def send_nowait(self, data: bytes, *, last: bool) -> bytes | None:
        """Send a part of a request; return the rest that did not go without waiting, None after a failure."""
        sent = self.stream.send_at_once(data)
        if sent is None:
            return None
        self.sent = last and sent == len(data)
        return data[sent:]

    def close(self) -> None:
        """Close in order after a complete exchange, else by a reset, which ends no request."""
        if self.sent and self.answered:
            self.stream.sock.close()
        else:
            reset(self.stream.sock)


class AppConnections:
    """The connection to the app that one caller's requests take: the kept one, or a new one.

    `current`: the connection of the present request, or of the one before.
    """

    __slots__ = ("_app", "_begun", "_connection", "_service", "current")

    def __init__(self, service: HttpService, connection: Connection) -> None:
        self._service = service
        self._connection = connection
        self._app = str(service.app)  # text, made once
        self._begun: Begun | None = None  # a dial that `dial_at_once` has left to `take`
        self.current: AppConnection | None = None

    async def take(self, *, last: bool) -> AppConnection:
        """Return the connection for the next request; `last`: it has a body. Raises DialFailed."""
        if (kept := self.kept(last=last)) is not None:
            return kept
        self._close()
        service, begun = self._service, self._begun
        self._begun = None
        if begun is None:
            sock = await dial(service.app, service.connect_timeout, service.preamble, service.shun)
        else:
            timeout, preamble = service.connect_timeout, service.preamble
            sock = await finish(begun, service.app, timeout, preamble, service.shun)
        return self._new(sock, last)

    def kept(self, *, last: bool) -> AppConnection | None:
        """Return the present connection for the next request; None if it cannot take one."""
        kept = self.current
        if kept is None or not kept.idle:
            return None
        kept.next_exchange(last=last)
        return kept

    def dial_at_once(self, *, last: bool) -> AppConnection | None:
        """Return a new one without a wait; None if `take` has to wait for it, or to say why there is none."""
        self._close()
        service = self._service
        try:
            begun = begin(service.app, service.shun)
        except DialFailed:
            return None
        if begun is None or not begun.connected:
            self._begun = begun
            return None
        if service.preamble and not took_at_once(begun.sock, service.preamble):
            begun.sock.close()
            return None
        return self._new(begun.sock, last)

    def drop(self) -> None:
        """Close what there is."""
        self.drop_begun()
        self._close()

    def drop_begun(self) -> None:
        """Close a dial that no request has taken."""
        if self._begun is not None:
            self._begun.sock.close()
            self._begun = None

    def _close(self) -> None:
        if self.current is not None:
            self.current.close()
            self.current = None

    def _new(self, sock: socket.socket, last: bool) -> AppConnection:
        self._connection.dialled = self._app
        self.current = AppConnection(sock, self._connection.progress, last=last)
        return self.current
