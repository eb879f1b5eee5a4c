"""A relayed connection for the relay's tests: its four sockets, and a way to run it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from OpenSSL import SSL

from agent.net.handshake import client_handshake, server_handshake
from agent.relay.relay import Relay
from agent.relay.splice import Transfer
from certs.contexts import Contexts
from tests.support.socket_pairs import tcp_pair


class CountingRelay(Relay):
    """Counts what its turns find ready, to show that it rests."""

    served = 0

    def _turn(self, seconds: float = 0) -> int:
        ready = super()._turn(seconds)
        self.served += ready
        return ready


@dataclass
class Wire:
    """app ↔ plain ══relay══ tls ↔ peer: the outer two are the test's, the inner two the relay's."""

    app: socket.socket
    plain: socket.socket
    tls: SSL.Connection
    tls_sock: socket.socket
    peer: SSL.Connection
    peer_sock: socket.socket

    def close(self) -> None:
        for sock in (self.app, self.plain, self.tls_sock, self.peer_sock):
            sock.close()

    async def from_app(self, size: int = 65536) -> bytes:
        await trio.lowlevel.wait_readable(self.app)
        return self.app.recv(size)

    async def all_from_peer(self) -> bytes:
        """Up to its close_notify."""
        heard = bytearray()
        while True:
            try:
                heard += await self.from_peer()
            except SSL.ZeroReturnError:
                return bytes(heard)

    async def from_peer(self, size: int = 65536) -> bytes:
        while True:
            try:
                return self.peer.recv(size)
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(self.peer_sock)


Wiring = Callable[..., Awaitable[Wire]]


@asynccontextmanager
async def wirings(contexts: Contexts) -> AsyncIterator[Wiring]:
    """A maker of wires, all of which are closed when the block ends."""
    wires: list[Wire] = []

    async def make(*, unix: bool = False) -> Wire:
        app, plain = socket.socketpair() if unix else tcp_pair()
        ours, theirs = tcp_pair()
        for sock in (app, plain):
            sock.setblocking(False)
        ends: dict[str, SSL.Connection] = {}

        async def answer() -> None:
            ends["peer"] = await server_handshake(theirs, lambda: contexts.server, 5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            ends["tls"] = await client_handshake(ours, contexts.client, "db.test", 5)
        wire = Wire(app, plain, ends["tls"], ours, ends["peer"], theirs)
        wires.append(wire)
        return wire

    yield make
    for wire in wires:
        wire.close()


@asynccontextmanager
async def relaying(relay: Relay, wire: Wire) -> AsyncIterator[list[Transfer]]:
    """The wire is relayed during the block, which must bring it to an end; then here is the transfer."""
    transfers: list[Transfer] = []

    async def run() -> None:
        transfers.append(await relay.run(wire.plain, wire.tls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield transfers
