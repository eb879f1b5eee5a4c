"""The tunnels of this process to the endpoints that offer them: one for each, and more where one is full.

A tunnel belongs to an identity, an address and a generation of credentials. The first connection to an
endpoint makes it, and those that come meanwhile wait for the same; a failure is the failure of each. It is
ready once the far side has greeted: a refusal of our certificate has come by then (TLS 1.3). It is retired by
newer credentials, by GOAWAY, and by a minute without a stream: no stream begins in it any more, and those
that are open go on.

A far side that shakes hands and then speaks no HTTP/2 offers what it does not have. It gets a connection
each, and is asked again a minute later.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Where, contained
from agent.base.latest import Latest
from agent.connections.connection import Connection, cipher_of
from agent.connections.ledger import Ledger
from agent.connections.records import CloseReason, Direction, Party
from agent.h2.header_blocks import request_block
from agent.h2.requests import Request
from agent.h2.stream import Stream
from agent.net.dial import DialFailed, Shun, dial, nothing
from agent.net.handshake import HandshakeFailed, client_handshake
from agent.outbound.identify import identify, server_name
from agent.outbound.outbound import Outbound
from agent.outbound.reasons import NotServed
from agent.policy.deny_list import DenyList
from agent.relay.close import close_without_notify, reset
from agent.relay.relay import Relay
from agent.relay.splice import Progress, Transfer
from agent.tunnel.carry import carry
from agent.tunnel.ends import TunnelReason
from agent.tunnel.leg import Leg
from agent.tunnel.sign import marked
from agent.tunnel.tunnel import LOOK_SECONDS, Tunnel
from certs.contexts import Contexts
from certs.peer import Peer, PeerRejected
from upstreams.endpoints import ExpectedIdentity
from upstreams.reach import DialAddress
from upstreams.travel import IN_TUNNEL, Travel, TravelReason

MOST_TUNNELS = 4  # to one endpoint
IDLE_SECONDS = 60.0  # without a stream
REST_SECONDS = 60.0  # before an endpoint that does not keep its offer is asked again

_Failure = DialFailed | HandshakeFailed | PeerRejected | NotServed


@dataclass(frozen=True, slots=True)
class Place:
    """What a tunnel leads to, and by which credentials of ours."""

    expected: ExpectedIdentity
    host: str
    port: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelContext:
    """What all tunnels of this process share. The values are the newest ones."""

    credentials: Latest[Contexts]
    deny_list: Latest[DenyList]
    relay: Relay
    ledger: Ledger
    faults: FaultEvents
    clock: Clock
    shun: Shun = nothing


class ClientTunnel:
    """One tunnel of ours (agent.tunnel.tunnel.TunnelEvents)."""

    def __init__(self, place: Place, ours: Party, peer: Peer, name: str, cipher: str) -> None:
        self.place = place
        self.cipher = cipher  # TLS version and cipher
        self.ours = ours
        self.peer = peer
        self.block = request_block(f"{name}:443".encode("ascii", "replace"))
        self.tunnel: Tunnel
        self.greeted = trio.Event()  # or ended before
        self.retired = False
        self.idle_since = trio.current_time()

    @property
    def takes_streams(self) -> bool:
        """Whether a new stream may begin, and would not have to wait for others."""
        tunnel = self.tunnel
        return not self.retired and tunnel.h2.settled and tunnel.takes_streams and tunnel.h2.send_window > 0

    async def run(self, sock: socket.socket, progress: Progress) -> Transfer:
        """Carry a connection of our app; while `takes_streams`."""
        return await carry(self.tunnel, sock, self.block, progress)

    def open(self, sock: socket.socket, progress: Progress, on_over: Callable[[Leg], None]) -> Leg:
        """Do the same without a wait; `on_over` is called once it is over."""
        return self.tunnel.open(sock, self.block, progress, on_over)

    def retire(self) -> None:
        """Begin no more streams; end with the last one."""
        self.retired = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if (self.retired or self.tunnel.h2.peer_left) and not self.tunnel.streams:
            self.tunnel.end(TunnelReason.RETIRED)

    # --- TunnelEvents ---

    def on_request(self, _tunnel: Tunnel, _stream: Stream, _request: Request) -> None:
        """See TunnelEvents: a server opens none."""

    def on_change(self, tunnel: Tunnel) -> None:
        """See TunnelEvents."""
        if tunnel.h2.settled or tunnel.reason is not None:
            self.greeted.set()
        if not tunnel.streams:
            self.idle_since = trio.current_time()
            self._end_if_over()

    async def look_after(self) -> None:
        """Ask a silent peer for a sign of life, and retire when there was no stream for a while."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if not self.tunnel.streams and trio.current_time() - self.idle_since > IDLE_SECONDS:
                self.retire()
            elif not self.tunnel.look():
                return


@dataclass(slots=True)
class _Making:
    """A tunnel that is being made, for all that wait for it."""

    done: trio.Event = field(default_factory=trio.Event)
    tunnel: ClientTunnel | None = None
    failure: _Failure | None = None


class Tunnels:
    """The tunnels by place. `run` has their tasks."""

    def __init__(self, context: TunnelContext) -> None:
        self._context = context
        self._ready: dict[Place, list[ClientTunnel]] = {}
        self._making: dict[Place, _Making] = {}
        self._no_offer: dict[Place, float] = {}  # until when an endpoint is not asked again
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Tunnels ready={sum(map(len, self._ready.values()))}>"

    @property
    def any(self) -> bool:
        """Whether there is a tunnel at all."""
        return bool(self._ready)

    async def run(self) -> None:
        """Keep the tunnels until cancelled; retire those of older credentials."""
        async with trio.open_nursery() as self._nursery:
            version = 0
            while True:
                contexts, version = await self._context.credentials.newer(version)
                self._no_offer.clear()
                for place in [place for place in self._ready if place.generation != contexts.generation]:
                    for tunnel in self._ready.pop(place):
                        tunnel.retire()

    def ready(self, expected: ExpectedIdentity, dialling: DialAddress) -> ClientTunnel | None:
        """Return a tunnel that takes a stream now; None if there is none."""
        contexts = self._context.credentials.value
        if contexts is None:
            return None
        place = Place(expected, dialling.host, dialling.port, contexts.generation)
        for tunnel in self._ready.get(place, ()):
            if tunnel.takes_streams:
                return tunnel
        return None

    def standing(self, expected: ExpectedIdentity, dialling: DialAddress) -> Travel:
        """Return whether a stream may begin there, or a tunnel for it may be made (TunnelStanding)."""
        contexts = self._context.credentials.value
        if contexts is None:
            return IN_TUNNEL
        return self._standing(Place(expected, dialling.host, dialling.port, contexts.generation))

    def _standing(self, place: Place) -> Travel:
        ready = self._ready.get(place, ())
        if place in self._making or any(tunnel.takes_streams for tunnel in ready):
            return IN_TUNNEL
        rest = self._no_offer.get(place, -math.inf) - trio.current_time()
        if rest > 0:
            return Travel(TravelReason.REFUSED, rest)
        return IN_TUNNEL if len(ready) < MOST_TUNNELS else Travel(TravelReason.FULL)

    async def get(
        self, expected: ExpectedIdentity, dialling: DialAddress, *, dial_seconds: float, shake_seconds: float
    ) -> ClientTunnel | None:
        """Return a tunnel that takes a stream, making one if need be; None: use a connection of its own.

        Raises DialFailed, HandshakeFailed, PeerRejected, NotServed.
        """
        found = self.ready(expected, dialling)
        contexts = self._context.credentials.value
        if found is not None or contexts is None or self._nursery is None:
            return found
        place = Place(expected, dialling.host, dialling.port, contexts.generation)
        if not self._standing(place).in_tunnel:
            return None
        making = self._making.get(place)
        if making is None:
            making = self._making[place] = _Making()
            limits = _Limits(dial_seconds, shake_seconds)
            faults, keep = self._context.faults, self._keep
            self._nursery.start_soon(
                contained, faults, Where.CONNECTION, "a tunnel", keep, place, contexts, making, limits
            )
        await making.done.wait()
        if making.failure is not None:
            raise _again(making.failure)
        made = making.tunnel
        return made if made is not None and made.takes_streams else None

    async def _keep(self, place: Place, contexts: Contexts, making: _Making, limits: _Limits) -> None:
        """Make a tunnel, hand it to those that wait, and keep it until its end."""
        sock: socket.socket | None = None
        try:
            address = TcpAddress(place.host, place.port)
            sock = await dial(address, limits.dial_seconds, shun=self._context.shun)
            tls, made = await self._shake(sock, place, contexts, limits.shake_seconds)
            await self._serve(sock, tls, made, making, limits)
        except (DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            making.failure = failure
        finally:
            self._settle(place, making)
            if sock is not None:
                reset(sock)  # without effect on a closed one

    async def _shake(
        self, sock: socket.socket, place: Place, contexts: Contexts, seconds: float
    ) -> tuple[SSL.Connection, ClientTunnel]:
        context, credentials, expected = self._context, contexts.credentials, place.expected
        name = server_name(expected, credentials.bundle.trust_domain)
        tls = await client_handshake(sock, contexts.client, marked(name), seconds, context.relay.serve_relay)
        peer = identify(tls, expected, context.credentials, context.clock(), context.deny_list)
        ours = Party(id=credentials.leaf.id, serial=credentials.leaf.serial)
        return tls, ClientTunnel(place, ours, peer, name, cipher_of(tls))

    async def _serve(
        self, sock: socket.socket, tls: SSL.Connection, made: ClientTunnel, making: _Making, limits: _Limits
    ) -> None:
        ledger, place = self._context.ledger, made.place
        with ledger.open(Direction.OUTBOUND, "", str(place.expected)) as connection:
            connection.ours, connection.peer, connection.cipher = made.ours, made.peer, made.cipher
            connection.dialled = f"{place.host}:{place.port}"
            tunnel = made.tunnel = Tunnel(tls, sock, self._context.relay, made, client=True)
            ledger.become_tunnel(connection, tunnel, place.generation)
            tunnel.start()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(made.look_after)
                    with trio.move_on_after(limits.shake_seconds):
                        await made.greeted.wait()
                    self._ready.setdefault(place, []).append(made)
                    making.tunnel = made if tunnel.h2.settled else None
                    self._settle(place, making)
                    await tunnel.ended.wait()
                    nursery.cancel_scope.cancel()
            finally:
                self._end(made, connection)
                close_without_notify(sock)
        if tunnel.failure is not None:
            raise tunnel.failure

    def _settle(self, place: Place, making: _Making) -> None:
        """Let those that wait go on; called again without effect."""
        if not making.done.is_set():
            making.done.set()
            del self._making[place]
            if making.tunnel is None and making.failure is None:
                self._no_offer[place] = trio.current_time() + REST_SECONDS

    def _end(self, made: ClientTunnel, connection: Connection) -> None:
        tunnel, place = made.tunnel, made.place
        tunnel.end(connection.closing or CloseReason.SHUTDOWN)
        assert tunnel.reason is not None  # it has ended
        connection.end(tunnel.reason, tunnel.detail)
        tunnels = self._ready.get(place, [])
        if made in tunnels:
            tunnels.remove(made)
        if not tunnels:
            self._ready.pop(place, None)


def own_tunnels(outbound: Outbound, faults: FaultEvents, shun: Shun) -> Tunnels:
    """Return the tunnels of a process."""
    return Tunnels(
        TunnelContext(
            credentials=outbound.credentials,
            deny_list=outbound.deny_list,
            relay=outbound.relay,
            ledger=outbound.ledger,
            faults=faults,
            clock=outbound.clock,
            shun=shun,
        )
    )


@dataclass(frozen=True, slots=True)
class _Limits:
    """How long the steps of making a tunnel may take, in seconds."""

    dial_seconds: float
    shake_seconds: float


def _again(failure: _Failure) -> _Failure:
    """Return the failure for one more task: an exception that is raised twice keeps the frames of both."""
    if isinstance(failure, DialFailed):
        return DialFailed(failure.reason, failure.detail)
    if isinstance(failure, HandshakeFailed):
        return HandshakeFailed(failure.reason, failure.detail)
    if isinstance(failure, PeerRejected):
        return PeerRejected(failure.reason, failure.detail)
    return NotServed(failure.reason, failure.detail)
