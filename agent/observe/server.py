"""The admin endpoint's HTTP/1.1 server: h11 over trio, a few routes, limits on everything.

Over TCP it answers questions only, and only if Host names one of its addresses, `localhost` or an entry of
`admin_hosts`. Requests that change the agent need a unix socket, whose file mode says which users may send
them.

A probe always finds a slot: the connection that has been idle for longest, between two requests or within
one, is closed for a new one, and one address holds at most half of the slots (`agent.net.admission`). Only a
connection whose request is being answered keeps its slot.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import h11
import trio

from agent import VERSION
from agent.base.containment import Where
from agent.http1.head import FieldNames, name_refused
from agent.http1.host import LOCAL, host_name
from agent.net.accept import AdmissionEvents, accept_all
from agent.net.admission import Admission, Slot

MAX_HEAD = 16 << 10  # bytes
MAX_BODY = 64 << 10  # bytes
MAX_CONNECTIONS = 64  # that wait for the client; as many more may wait for our answer
REQUEST_SECONDS = 10.0  # for a request to arrive, and again for its answer to leave
IDLE_SECONDS = 10.0  # between two requests
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer. `headers`: those that this answer alone has."""

    status: int = 200
    content_type: str = TEXT
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[bytes], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and path, and the handler; `changes`: the request changes the agent, so TCP refuses it."""

    method: str
    path: str
    answer: Handler
    changes: bool = False


def text_reply(status: int, text: str) -> Reply:
    """Return a reply of one line of text."""
    return Reply(status=status, body=text.encode() + b"\n")


class AdminEvents(AdmissionEvents, Protocol):
    """Told of failures at the admin endpoint; must not block."""

    def admin_failed(self, path: str, error: Exception, /) -> None:
        """A request could not be answered."""


class Seat(Protocol):
    """The slot of a connection: it may be given to another one except while a request is answered."""

    def settle(self) -> None:
        """Keep the slot: the client waits for our answer."""

    def rest(self) -> None:
        """Let the slot be taken: the answer is made."""


class Admin:
    """Serves the routes on every given listener. `hosts` are names for it, beside its addresses."""

    def __init__(self, routes: Sequence[Route], events: AdminEvents, hosts: Collection[str] = ()) -> None:
        self._routes = {(route.method, route.path): route for route in routes}
        self._events = events
        self._hosts = LOCAL | {host_name(host) for host in hosts}
        self._admission = Admission(2 * MAX_CONNECTIONS, MAX_CONNECTIONS, fair=True, grace=0.0, own_grace=0.0)

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept and answer until cancelled. The listening sockets remain the caller's to close."""
        async with trio.open_nursery() as connections:
            await accept_all(
                sockets,
                self._serve_connection,
                purpose="the admin endpoint",
                where=Where.ADMIN,
                connections=connections,
                admission=self._admission,
                events=self._events,
            )

    async def _serve_connection(self, sock: socket.socket, place: Slot) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        hosts = self._hosts_at(sock)
        with place.scope, suppress(trio.BrokenResourceError):  # the client may have gone
            async with stream:
                await _Conversation(stream, self._routes, place, events=self._events, hosts=hosts).run()

    def _hosts_at(self, sock: socket.socket) -> Collection[str] | None:
        """Return the names that Host may have; None for any, on a unix socket, which no browser reaches."""
        if sock.family == socket.AF_UNIX:
            return None
        return self._hosts | {host_name(sock.getsockname()[0])}


class _Conversation:
    """One connection, with one request after another; `hosts` is None on a unix socket."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        routes: Mapping[tuple[str, str], Route],
        seat: Seat,
        *,
        events: AdminEvents,
        hosts: Collection[str] | None,
    ) -> None:
        self._stream = stream
        self._routes = routes
        self._seat = seat
        self._events = events
        self._hosts = hosts
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._without_body = False

    async def run(self) -> None:
        seconds = REQUEST_SECONDS
        while True:
            with trio.move_on_after(seconds) as waiting:
                reply = await self._answer_one()
            if waiting.cancelled_caught or reply is None:
                return
            with trio.move_on_after(REQUEST_SECONDS):
                await self._send(reply)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()
            seconds = IDLE_SECONDS

    async def _answer_one(self) -> Reply | None:
        """Read one request and return its reply; None when the client has left."""
        self._without_body = False
        try:
            head = await self._next()
            if not isinstance(head, h11.Request):
                return None
            self._without_body = head.method == b"HEAD"
            if (name := FieldNames.PLAIN.refused(head.headers.raw_items())) is not None:
                return text_reply(400, str(name_refused(name)))
            body = bytearray()
            while isinstance(event := await self._next(), h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    return text_reply(413, f"the body is over {MAX_BODY} bytes")
        except h11.RemoteProtocolError as error:
            return text_reply(error.error_status_hint, str(error))
        except ValueError:  # h11 parses a length by Python's int, which refuses thousands of digits
            return text_reply(400, "a number of too many digits")
        self._seat.settle()
        try:
            return await self._route(head, bytes(body))
        finally:
            self._seat.rest()

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11 types its sentinels as one class
            self._http.receive_data(bytes(await self._stream.receive_some(MAX_HEAD)))

    async def _route(self, head: h11.Request, body: bytes) -> Reply:
        path = head.target.decode("latin-1").partition("?")[0]
        method = head.method.decode("latin-1")
        if (host := self._foreign_host(head)) is not None:
            return text_reply(403, f"host {host!r} is no name of this endpoint (-admin-hosts)")
        route = self._routes.get(("GET" if method == "HEAD" else method, path))
        if route is None:
            known = sorted(method for method, known_path in self._routes if known_path == path)
            if known:
                return text_reply(405, f"{path} answers {', '.join(known)}")
            return text_reply(404, f"no {path}; try /live, /ready, /metrics or /status")
        if route.changes and self._hosts is not None:
            return text_reply(
                403, f"{method} {path} is answered over the unix socket only (-admin-bind unix:…)"
            )
        try:
            return await route.answer(body)
        except Exception as error:  # noqa: BLE001 - it fails this request, and not the agent
            self._events.admin_failed(path, error)
            return text_reply(500, "not answered; the log says why")

    def _foreign_host(self, head: h11.Request) -> str | None:
        """Return the Host of a request if it is none of ours. HTTP/1.0 may lack Host; h11 refuses two."""
        named = [value.decode("latin-1") for name, value in head.headers if name == b"host"]
        if self._hosts is None or not named or host_name(named[0]) in self._hosts:
            return None
        return named[0]

    async def _send(self, reply: Reply) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Server", f"connect-sidecar/{VERSION}"),
            *reply.headers,
        ]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=reply.status, headers=headers)
        body = b"" if self._without_body else reply.body
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        await self._stream.send_all(b"".join(filter(None, map(self._http.send, events))))
