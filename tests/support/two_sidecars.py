"""The data path in one process, truly through the kernel: client → outbound → mTLS → inbound → app.

    async with mesh(echo) as m:
        client = await m.connect()        # a trio stream to the upstream's local bind
        caller = await m.call(contexts)   # a TLS connection straight to the public listener

web of dc1 calls, db of dc2 answers. Both halves share one relay, as a process has only one.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio
import trio.testing
from OpenSSL import SSL

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.base.watch_status import WatchStatus
from agent.connections.ledger import Ledger
from agent.connections.records import Finished
from agent.inbound.inbound import serve as serve_inbound
from agent.inbound.tunnel import serve_tunnel
from agent.inbound.verdict import Inbound
from agent.net.accept import AtOnce, accept_all
from agent.net.admission import Admission, Slot
from agent.net.handshake import client_handshake
from agent.outbound.at_once import AtOnce as Tunnelled
from agent.outbound.outbound import Outbound
from agent.outbound.outbound import serve as serve_outbound
from agent.outbound.tunnels import Tunnels
from agent.outbound.upstream_state import UpstreamState
from agent.policy.authorize import Policy
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.http_mode import HttpMode
from agent.policy.source_intentions import OwnIntentions, SourceIntentions, unknown_own_intentions
from agent.relay.relay import Relay
from agent.snapshot import EndpointSource
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.scenarios.recorder import Recorder
from tests.support.policies import NEVER_TOO_OLD, allow_all
from tests.support.socket_pairs import contexts_of, listener
from tests.support.tunnels import client_tunnels
from tests.support.upstream_doubles import Told, surroundings
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, ExpectedIdentity, Status
from upstreams.spec import Lookup, TunnelMode, Upstream, parse_upstream_flag

Handler = Callable[[trio.SocketStream], Awaitable[None]]
UPSTREAM = parse_upstream_flag("db@dc2:9191")
NOT_TOLD = unknown_own_intentions("no answer in this test")


def now() -> datetime:
    return datetime.now(UTC)


async def until(condition: Callable[[], bool]) -> None:
    """Check again and again until a condition holds that no event announces."""
    while not condition():  # noqa: ASYNC110 - see above
        await trio.sleep(0.001)


@dataclass(slots=True)
class App:
    """The workload behind the inbound half. `accepts` counts every TCP connection it ever got."""

    address: Address
    accepts: int = 0


@dataclass(slots=True)
class Side:
    """One sidecar's books."""

    contexts: Latest[Contexts]
    ledger: Ledger
    events: Recorder
    admission: Admission

    async def finished(self, count: int = 1) -> Finished:
        """Wait until that many connections have ended; the last of them."""
        await until(lambda: len(self.events.closed_ones) + len(self.events.refused_ones) >= count)
        return self.ledger.recent()[-1]


@dataclass(slots=True)
class Mesh:
    """Both halves, and the ways in."""

    root: Issuer
    app: App
    relay: Relay
    web: Side
    db: Side
    policy: Latest[Policy]
    endpoints: Latest[EndpointSet]
    loads: Counter[EndpointKey]
    upstream: Address
    public: TcpAddress
    deny_list: Latest[DenyList] = field(default_factory=lambda: Latest(NO_ENTRIES))
    outgoing: Latest[SourceIntentions] = field(default_factory=Latest)
    own_intentions: Latest[OwnIntentions] = field(default_factory=Latest)
    answer_why: OwnIntentions = NOT_TOLD
    asked_why: int = 0
    proxy_protocol: bool = False
    underscores: bool = False
    freshness: Freshness = NEVER_TOO_OLD
    told: Told = field(default_factory=Told)
    tunnel: bool = False  # the endpoint offers tunnels, and both halves take part
    leaving: trio.Event = field(default_factory=trio.Event)
    tunnels: Tunnels = field(init=False)
    targets: UpstreamState = field(init=False)

    def __post_init__(self) -> None:
        context = surroundings(self, self.told, loads=self.loads)
        mode = TunnelMode.AUTO if self.tunnel else TunnelMode.NEVER
        self.targets = UpstreamState(UPSTREAM, replace(context, tunnel=mode))
        self.tunnels = client_tunnels(self.web.contexts, self.deny_list, self.relay, self.web.ledger)

    def want(self, _upstreams: Iterable[Upstream], /) -> None:
        pass

    def explain_refusals(self) -> None:
        self.asked_why += 1
        self.own_intentions.publish(self.answer_why)

    def source(self, _lookup: Lookup, _poll_interval: float | None, /) -> EndpointSource:
        status = WatchStatus(name="endpoints")
        return EndpointSource(endpoints=self.endpoints, status=status, ask_again=lambda: None)

    async def connect(self) -> trio.SocketStream:
        """As web's app: connect to the local bind of the upstream."""
        if isinstance(self.upstream, UnixAddress):
            return await trio.open_unix_socket(self.upstream.path)
        return await trio.open_tcp_stream(self.upstream.host, self.upstream.port)

    def raw(self) -> socket.socket:
        """A non-blocking TCP socket to db's public listener."""
        sock = socket.create_connection((self.public.host, self.public.port))
        sock.setblocking(False)
        return sock

    async def call(self, context: SSL.Context) -> tuple[socket.socket, SSL.Connection]:
        """A TLS connection of one's own to db's public listener."""
        return (sock := self.raw()), await client_handshake(sock, context, "db.default.dc2.internal.test", 5)

    async def quiet(self) -> None:
        """Wait until no connection lives."""
        for half in (self.web, self.db):
            await half.ledger.empty()


def endpoint(
    port: int, *, name: str = "db-1", host: str = "127.0.0.1", service: str = "db", datacenter: str = "dc2"
) -> Endpoint:
    """An instance as the catalog would tell of it."""
    return Endpoint(
        node="node-1",
        service_id=name,
        datacenter=datacenter,
        expected=ExpectedIdentity(service=service, datacenter=datacenter),
        service_address=host,
        port=port,
        node_address=host,
        tagged={},
        node_tagged={},
        weight=1,
        status=Status.PASSING,
    )


def one(*endpoints: Endpoint) -> EndpointSet:
    """An answer with these instances."""
    return EndpointSet(endpoints=endpoints)


def side(contexts: Contexts | None, limit: int | None = None) -> Side:
    """The books of one sidecar."""
    events = Recorder()
    return Side(Latest(contexts), Ledger(now, events), events, Admission(limit))


@contextlib.asynccontextmanager
async def mesh(
    handler: Handler,
    *,
    handshake_timeout: float = 5.0,
    app_socket: Path | None = None,
    upstream_socket: Path | None = None,
    limit: int | None = None,
    http: HttpMode = HttpMode.NEVER,
    tunnel: bool = False,
) -> AsyncIterator[Mesh]:
    """web in dc1 with an upstream db, db in dc2, everything allowed."""
    root = Issuer.root()
    web = side(contexts_of(root.leaf(service="web", datacenter="dc1"), root), limit)
    db = side(contexts_of(root.intermediate().leaf(service="db", datacenter="dc2"), root), limit)
    with Relay() as relay, contextlib.ExitStack() as sockets:
        app_sock, app_address = _listen(sockets, app_socket)
        public_sock, public = _listen(sockets, None)
        upstream_sock, upstream_address = _listen(sockets, upstream_socket)
        assert isinstance(public, TcpAddress)
        m = Mesh(
            root=root,
            app=App(app_address),
            relay=relay,
            web=web,
            db=db,
            policy=Latest(allow_all()),
            endpoints=Latest(one(replace(endpoint(public.port), tunnels=tunnel))),
            tunnel=tunnel,
            loads=Counter(),
            upstream=upstream_address,
            public=public,
        )
        async with trio.open_nursery() as connections, trio.open_nursery() as listeners:
            listeners.start_soon(_serve_app, app_sock, m.app, handler, connections)
            listeners.start_soon(m.tunnels.run)
            start = partial(_start, listeners, connections)
            start(public_sock, db, partial(inbound, m, handshake_timeout=handshake_timeout, http=http))
            serve = partial(outbound, m, handshake_timeout=handshake_timeout)
            start(upstream_sock, web, serve, at_once=partial(outbound_at_once, m))
            await trio.testing.wait_all_tasks_blocked()  # until all of them listen
            yield m
            listeners.cancel_scope.cancel()
            connections.cancel_scope.cancel()


def _listen(sockets: contextlib.ExitStack, path: Path | None) -> tuple[socket.socket, Address]:
    if path is None:
        sock = sockets.enter_context(listener())
        return sock, TcpAddress(*sock.getsockname())
    sock = sockets.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen(64)
    sock.setblocking(False)
    return sock, UnixAddress(str(path))


def _start(
    listeners: trio.Nursery,
    connections: trio.Nursery,
    sock: socket.socket,
    side: Side,
    handler: Callable[[socket.socket, Slot], Awaitable[None]],
    *,
    at_once: AtOnce | None = None,
) -> None:
    accept = partial(accept_all, [sock], handler, at_once=at_once)
    admission, events = side.admission, side.events
    task = partial(accept, purpose="tests", connections=connections, admission=admission, events=events)
    listeners.start_soon(task)


async def inbound(
    m: Mesh,
    sock: socket.socket,
    slot: Slot | None = None,
    *,
    handshake_timeout: float = 5.0,
    http: HttpMode = HttpMode.NEVER,
) -> None:
    """db's sidecar serves one caller."""
    shared = _inbound(m, handshake_timeout, http)
    await serve_inbound(sock, slot if m.tunnel else None, shared)


def _inbound(m: Mesh, handshake_timeout: float, http: HttpMode) -> Inbound:
    made = Inbound(
        credentials=m.db.contexts,
        policy=m.policy,
        freshness=m.freshness,
        deny_list=m.deny_list,
        app=m.app.address,
        relay=m.relay,
        ledger=m.db.ledger,
        faults=m.db.events,
        clock=now,
        handshake_timeout=handshake_timeout,
        connect_timeout=2.0,
        http=http,
        underscores_in_headers=m.underscores,
        proxy_protocol=m.proxy_protocol,
        serve_tunnel=serve_tunnel if m.tunnel else None,
        renewed=lambda: made if made.app == m.app.address else _inbound(m, handshake_timeout, http),
        leaving=m.leaving,
    )
    return made


async def outbound(
    m: Mesh, sock: socket.socket, _slot: Slot | None = None, *, handshake_timeout: float = 5.0
) -> None:
    """web's sidecar serves its app once."""
    await serve_outbound(sock, lambda: None, m.targets, _outbound(m, handshake_timeout))


def outbound_at_once(m: Mesh, sock: socket.socket, slot: Slot, again: Callable[[], None]) -> bool:
    """web's sidecar serves its app without a task, if it can."""
    shared = Tunnelled(_outbound(m, 5.0), m.tunnels, m.web.ledger, m.web.events)
    return shared.serve(sock, slot, again, m.targets)


def _outbound(m: Mesh, handshake_timeout: float) -> Outbound:
    return Outbound(
        credentials=m.web.contexts,
        source_intentions=m.outgoing,
        deny_list=m.deny_list,
        relay=m.relay,
        ledger=m.web.ledger,
        clock=now,
        handshake_timeout=handshake_timeout,
        own_intentions=m.own_intentions,
        tunnels=m.tunnels,
    )


async def _serve_app(sock: socket.socket, app: App, handler: Handler, connections: trio.Nursery) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    with trio.socket.from_stdlib_socket(sock.dup()) as accepting:
        while True:
            client, _ = await accepting.accept()
            app.accepts += 1
            connections.start_soon(serve, trio.SocketStream(client))


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes; end when it ends."""
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


async def receive_all(stream: trio.SocketStream) -> bytes:
    """Everything up to the end of the stream."""
    return b"".join([data async for data in stream])
