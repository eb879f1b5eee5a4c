"""A caller's end of a real inbound half that judges HTTP by request.

async with front(permissions) as f:
    reply = await f.ask(b"GET /api HTTP/1.1\r\nHost: db\r\n\r\n")
    assert reply.status == 200 and f.app.reached
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import h11
import trio

from agent.policy.authorize import Policy
from agent.policy.http_mode import HttpMode
from agent.relay.splice import Progress
from agent.relay.streams import StreamBroken, TlsStream
from tests.scenarios.http_app import Answer, HttpApp, say_ok
from tests.support.policies import policy_of
from tests.support.two_sidecars import Mesh, mesh

Rule = Mapping[str, object]


def allow(**http: object) -> Rule:
    """A permission that allows."""
    return {"Action": "allow", "HTTP": http}


def deny(**http: object) -> Rule:
    """A permission that denies."""
    return {"Action": "deny", "HTTP": http}


def policy(*permissions: Rule, default_allow: bool = False) -> Policy:
    """web may call db by these permissions."""
    rule = {"SourceName": "web", "DestinationName": "db", "Permissions": list(permissions)}
    return policy_of([rule], "db", default_allow=default_allow)


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """`request("GET /x")`: a request of HTTP/1.1 with a Host."""
    return "\r\n".join((f"{line} HTTP/1.1", "Host: db", *headers, "", "")).encode("latin-1") + body


@dataclass(slots=True, kw_only=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    interim: list[int]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Caller:
    """A TLS connection of web's to db's public listener."""

    def __init__(self, sock: socket.socket, stream: TlsStream) -> None:
        self.sock = sock
        self.stream = stream
        self.received = b""

    async def send(self, data: bytes) -> None:
        """Raw bytes."""
        await self.stream.send(data)

    async def reply(self, method: str = "GET") -> Reply | None:
        """The next answer to a request of that method; None if the connection ends instead."""
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method=method, target="/", headers=[("Host", "db"), ("Upgrade", "websocket")]))
        http.send(h11.EndOfMessage())
        http.receive_data(self.received) if self.received else None
        head: h11.Response | h11.InformationalResponse | None = None
        body, interim = bytearray(), list[int]()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await self.stream.receive()
                except StreamBroken:
                    data = b""
                if not data and head is None:
                    return None
                http.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
                if event.status_code == 101:
                    head = event
                    break
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        assert head is not None
        self.received = http.trailing_data[0]
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        trailers = list(event.headers) if isinstance(event, h11.EndOfMessage) else []
        return Reply(
            status=head.status_code, headers=headers, body=bytes(body), trailers=trailers, interim=interim
        )

    async def ended(self) -> bool:
        """Whether the sidecar has ended the connection in order, without another byte."""
        try:
            return not self.received and await self.stream.receive() == b""
        except StreamBroken:
            return False


@dataclass(slots=True)
class Front:
    """The mesh, its app, and the way to be a caller."""

    mesh: Mesh
    app: HttpApp

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        """A new connection."""
        contexts = self.mesh.web.contexts.value
        assert contexts is not None
        sock, tls = await self.mesh.call(contexts.client)
        with sock:
            yield Caller(sock, TlsStream(tls, sock, Progress()))

    async def ask(self, raw: bytes, method: str = "GET") -> Reply | None:
        """One connection, these bytes, the first answer."""
        async with self.caller() as caller:
            with contextlib.suppress(StreamBroken):  # refused before all of it was sent
                await caller.send(raw)
            with trio.fail_after(10):
                return await caller.reply(method)


@contextlib.asynccontextmanager
async def front(
    *permissions: Rule,
    answer: Answer = say_ok,
    default_allow: bool = False,
    mode: HttpMode = HttpMode.IF_NEEDED,
    rules: Sequence[Rule] | None = None,
    underscores: bool = False,
) -> AsyncIterator[Front]:
    """db behind its sidecar; web may call by these permissions, or by whole `rules`."""
    app = HttpApp(answer)
    async with mesh(app, http=mode) as m:
        m.underscores = underscores
        m.policy.publish(
            policy(*permissions, default_allow=default_allow)
            if rules is None
            else policy_of(list(rules), "db", default_allow=default_allow)
        )
        yield Front(m, app)
    assert app.malformed == []
