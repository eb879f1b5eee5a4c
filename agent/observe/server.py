"""The admin endpoint's HTTP/1.1 server: h11 over trio, a handful of routes, bounds on everything.

Over TCP it only answers questions. Whatever changes the agent is asked for over a unix socket, where the
file's mode says who may.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import h11
import trio

from agent import VERSION
from agent.http1.head import FieldNames, name_refused

MAX_HEAD = 16 << 10  # bytes
MAX_BODY = 64 << 10  # bytes
MAX_CONNECTIONS = 64
REQUEST_SECONDS = 10.0  # for a request to arrive, and again for its answer to leave
IDLE_SECONDS = 60.0  # between two requests
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    status: int = 200
    content_type: str = TEXT
    body: bytes = b""


Handler = Callable[[bytes], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and path, and what answers it; `changes`: it does something, so not over TCP."""

    method: str
    path: str
    answer: Handler
    changes: bool = False


def text_reply(status: int, text: str) -> Reply:
    """An answer of one line."""
    return Reply(status=status, body=text.encode() + b"\n")


class Admin:
    """Serves the routes on every listener given."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = {(route.method, route.path): route for route in routes}
        self._slots = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept and answer until cancelled. The sockets listen already and stay the caller's."""
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
        await trio.serve_listeners(self._serve_connection, listeners)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await stream.aclose()
            return
        try:
            async with stream:
                may_change = stream.socket.family == socket.AF_UNIX
                await _Conversation(stream, self._routes, may_change=may_change).run()
        except trio.BrokenResourceError:
            pass  # the asker has gone; there is nobody left to tell
        finally:
            self._slots.release()


class _Conversation:
    """One connection, one request after the other."""

    def __init__(
        self, stream: trio.abc.Stream, routes: dict[tuple[str, str], Route], *, may_change: bool
    ) -> None:
        self._stream = stream
        self._routes = routes
        self._may_change = may_change
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
        """Read one request and make its answer; None when the asker has left."""
        try:
            head = await self._next()
            if not isinstance(head, h11.Request):
                return None
            if (name := FieldNames.PLAIN.refused(head.headers.raw_items())) is not None:
                return text_reply(400, str(name_refused(name)))
            body = bytearray()
            while isinstance(event := await self._next(), h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    return text_reply(413, f"the body is over {MAX_BODY} bytes")
        except h11.RemoteProtocolError as error:
            return text_reply(error.error_status_hint, str(error))
        return await self._route(head, bytes(body))

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11 types its sentinels as one class
            self._http.receive_data(bytes(await self._stream.receive_some(MAX_HEAD)))

    async def _route(self, head: h11.Request, body: bytes) -> Reply:
        path = head.target.decode("latin-1").partition("?")[0]
        method = head.method.decode("latin-1")
        self._without_body = method == "HEAD"
        route = self._routes.get(("GET" if method == "HEAD" else method, path))
        if route is None:
            known = sorted(method for method, known_path in self._routes if known_path == path)
            if known:
                return text_reply(405, f"{path} answers {', '.join(known)}")
            return text_reply(404, f"no {path}; try /live, /ready, /metrics or /status")
        if route.changes and not self._may_change:
            return text_reply(
                403, f"{method} {path} is answered over the unix socket only (-admin-bind unix:…)"
            )
        return await route.answer(body)

    async def _send(self, reply: Reply) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Server", f"connect-sidecar/{VERSION}"),
        ]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=reply.status, headers=headers)
        body = b"" if self._without_body else reply.body
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        await self._stream.send_all(b"".join(filter(None, map(self._http.send, events))))
