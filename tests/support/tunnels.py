"""Two ends of a tunnel over loopback, in one relay: what the far end does with each stream is the test's."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio
from OpenSSL import SSL

from agent.base.latest import Latest
from agent.connections.ledger import Ledger
from agent.h2.header_blocks import request_block
from agent.h2.requests import Request
from agent.h2.stream import Stream
from agent.net.handshake import client_handshake, server_handshake
from agent.outbound.tunnels import TunnelContext, Tunnels
from agent.policy.deny_list import DenyList
from agent.relay.close import close_both
from agent.relay.relay import Relay
from agent.relay.splice import Progress, Transfer
from agent.tunnel.carry import carry
from agent.tunnel.leg import Leg
from agent.tunnel.tunnel import Tunnel
from certs.contexts import Contexts
from tests.support.faults import NoFaults
from tests.support.socket_pairs import tcp_pair

BLOCK = request_block(b"db.default.dc2")


@dataclass
class FarEnd:
    """Accepts each stream into a pair of sockets, of which the test has the app's."""

    apps: list[socket.socket] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    over: list[Leg] = field(default_factory=list)
    changes: int = 0
    on_stream: Callable[[Tunnel, Stream], None] | None = None

    def on_request(self, tunnel: Tunnel, stream: Stream, request: Request) -> None:
        if self.on_stream is not None:
            self.on_stream(tunnel, stream)
            return
        app, plain = tcp_pair()
        self.apps.append(app)
        leg = Leg(tunnel, plain, Progress(), self.ended)
        self.legs.append(leg)
        tunnel.serve(stream, leg)

    def ended(self, leg: Leg) -> None:
        self.over.append(leg)
        close_both(leg.sock, None, leg.ending)

    def on_change(self, tunnel: Tunnel) -> None:
        self.changes += 1


@dataclass
class Ends:
    """near ══ tunnel ══ far; `open` makes a connection of an app to the near end."""

    near: Tunnel
    far: Tunnel
    far_end: FarEnd
    nursery: trio.Nursery
    socks: list[socket.socket] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    scopes: list[trio.CancelScope] = field(default_factory=list)  # of each stream

    async def open(self) -> tuple[socket.socket, socket.socket]:
        """Return the caller's end of a new stream, and the app's at the far end."""
        caller = self.call()
        await until(lambda: bool(self.far_end.apps))
        app = self.far_end.apps.pop(0)
        self.socks.append(app)
        return caller, app

    def call(self) -> socket.socket:
        """Return the caller's end of a new stream."""
        caller, plain = tcp_pair()
        self.socks.append(caller)
        self.nursery.start_soon(self._carry, plain)
        return caller

    async def _carry(self, plain: socket.socket) -> None:
        ending = None
        try:
            with trio.CancelScope() as scope:
                self.scopes.append(scope)
                transfer = await carry(self.near, plain, BLOCK, Progress())
                ending = transfer.ending
                self.transfers.append(transfer)
        finally:
            close_both(plain, None, ending)

    async def over(self, count: int = 1) -> list[Transfer]:
        """Wait until so many streams are over at both ends."""
        await until(lambda: min(len(self.transfers), len(self.far_end.over)) >= count)
        return self.transfers


async def until(true: Callable[[], bool]) -> None:
    """Wait for what the kernel has a part in."""
    with trio.fail_after(5):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.001)


async def handshaken(
    contexts: Contexts,
) -> tuple[tuple[SSL.Connection, socket.socket], tuple[SSL.Connection, socket.socket]]:
    """A client's and a server's end of a TLS connection."""
    ours, theirs = tcp_pair()
    ends: list[SSL.Connection] = []

    async def answer() -> None:
        ends.append(await server_handshake(theirs, lambda: contexts.server, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        tls = await client_handshake(ours, contexts.client, "db.test", 5)
    return (tls, ours), (ends[0], theirs)


@asynccontextmanager
async def tunnelled(contexts: Contexts) -> AsyncIterator[Ends]:
    """Both ends, until the block is left."""
    (near_tls, near_sock), (far_tls, far_sock) = await handshaken(contexts)
    far_end = FarEnd()
    with Relay() as relay:
        async with trio.open_nursery() as nursery:
            near = Tunnel(near_tls, near_sock, relay, FarEnd(), client=True)
            far = Tunnel(far_tls, far_sock, relay, far_end, client=False)
            near.start()
            far.start()
            ends = Ends(near, far, far_end, nursery)
            yield ends
            nursery.cancel_scope.cancel()
    for sock in (near_sock, far_sock, *ends.socks, *far_end.apps):
        sock.close()
    for leg in far_end.legs:
        leg.sock.close()


async def receive(sock: socket.socket, size: int) -> bytes:
    """Read exactly so much, or up to the end."""
    got = bytearray()
    with trio.fail_after(10):
        while len(got) < size:
            await trio.lowlevel.wait_readable(sock)
            data = sock.recv(min(size - len(got), 1 << 20))
            if not data:
                break
            got += data
    return bytes(got)


async def send(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await trio.lowlevel.wait_writable(sock)
        view = view[sock.send(view) :]


def client_tunnels(
    credentials: Latest[Contexts], deny_list: Latest[DenyList], relay: Relay, ledger: Ledger
) -> Tunnels:
    """The tunnels of one half, by what its connections share."""
    return Tunnels(
        TunnelContext(
            credentials=credentials,
            deny_list=deny_list,
            relay=relay,
            ledger=ledger,
            faults=NoFaults(),
            clock=lambda: datetime.now(UTC),
        )
    )
