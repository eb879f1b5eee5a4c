"""A pool of warm connections, their far sides in the test's hands: virtual time, no TLS, a socket pair each.

story.far_of(warm).send(b"hello")     # the far app speaks
story.far_of(warm).end("closed")      # close_notify; "broken": TCP ends without one
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import pytest
import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.connections.records import FailedAttempt
from agent.net.dial import DialFailed, DialReason
from agent.net.handshake import HandshakeFailed, HandshakeReason
from agent.outbound import warm_pool
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import WarmConnection
from agent.outbound.warm_pool import WarmContext, WarmPool
from agent.snapshot import Snapshot
from certs.bundle import fingerprint_of
from certs.contexts import Contexts
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.certs.authority import TRUST_DOMAIN, Issuer, der
from tests.support.agent_parts import registration
from tests.support.faults import NoFaults
from tests.support.socket_pairs import contexts_of
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.upstreams.test_choose import endpoint
from upstreams.route import Candidate
from upstreams.spec import LocalBind, ServiceDestination, Upstream

DB = Upstream(destination=ServiceDestination("db"), bind=LocalBind("127.0.0.1", 9191), warm=2)
ROOT = Issuer.root()
START = ROOT.now
CLOSE_NOTIFY = b"\0"
ONE = endpoint("one")


def contexts(generation: int = 1, *, root: Issuer = ROOT) -> Contexts:
    """Credentials of ours, good for three days."""
    return contexts_of(root.leaf(not_after=START + timedelta(days=3)), root, generation=generation)


@dataclass(slots=True)
class Events(NoFaults):
    """agent.outbound.warm_pool.WarmEvents, written down."""

    discarded: list[tuple[str, str]] = field(default_factory=list)  # endpoint, reason
    failed: list[FailedAttempt] = field(default_factory=list)

    def warm_discarded(self, _upstream: Upstream, candidate: Candidate, reason: str, _detail: str, /) -> None:
        self.discarded.append((candidate.hop.service_id, reason))

    def warm_failed(self, _upstream: Upstream, attempt: FailedAttempt, /) -> None:
        self.failed.append(attempt)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.discarded]


class FakeTls:
    """What a pool uses of a TLS connection, over a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv(self, size: int) -> bytes:
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            raise SSL.WantReadError from None
        if not data:
            raise SSL.SysCallError(-1, "Unexpected EOF")
        if data == CLOSE_NOTIFY:
            raise SSL.ZeroReturnError
        return data

    def shutdown(self) -> bool:
        try:
            self._sock.send(CLOSE_NOTIFY)
        except OSError as error:
            raise SSL.SysCallError(error.errno, "") from error
        return False


@dataclass(slots=True)
class Far:
    """The other end of one connection."""

    sock: socket.socket
    ours: socket.socket

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    def end(self, how: str) -> None:
        if how == "closed":
            self.sock.send(CLOSE_NOTIFY)
        else:
            self.sock.close()

    @property
    def alive(self) -> bool:
        """Whether our side still holds it."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True  # nothing was said, no end either
        except OSError:
            pass
        return False


class Story:
    """One upstream and its pool. Dials take `round_trip` seconds, and fail with `fault` if there is one."""

    def __init__(self, upstream: Upstream) -> None:
        self.skew = timedelta()
        self.lookups, self.told, self.events = Lookups(), Told(), Events()
        self.targets = UpstreamState(upstream, surroundings(self.lookups, self.told))
        self.targets.sources()
        self.lookups.answer("db", ONE)
        self.snapshot = Snapshot()
        self.contexts, self.deny_list = self.snapshot.credentials, self.snapshot.deny_list
        self.outgoing = self.snapshot.source_intentions
        self.contexts.publish(contexts())
        self.snapshot.registration.publish(registration(handshake_timeout=5.0))
        self.round_trip = 0.08
        self.fault: Exception | None = None
        self.dials: list[float] = []
        self.far: list[Far] = []
        context = WarmContext(snapshot=self.snapshot, clock=self.clock, rng=Random(1), events=self.events)
        self.pool = WarmPool(self.targets, context)

    def clock(self) -> datetime:
        return START + timedelta(seconds=trio.current_time()) + self.skew

    @property
    def alive(self) -> int:
        return sum(one.alive for one in self.far)

    @property
    def reasons(self) -> list[str]:
        return self.events.reasons

    def far_of(self, warm: WarmConnection) -> Far:
        """The far side of that connection."""
        (far,) = (one for one in self.far if one.ours is warm.sock)
        return far

    async def dial(self, _address: TcpAddress, _seconds: float, **_: object) -> socket.socket:
        self.dials.append(trio.current_time())
        await trio.sleep(self.round_trip)
        if self.fault is not None:
            raise self.fault
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.far.append(Far(theirs, ours))
        return ours

    async def client_handshake(self, sock: socket.socket, *_: object) -> FakeTls:
        await trio.sleep(self.round_trip)
        return FakeTls(sock)

    def identify(self, *_: object) -> Peer:
        identity = ServiceId(trust_domain=TrustDomain.parse(TRUST_DOMAIN), datacenter="dc1", service="db")
        return Peer(
            id=identity,
            serial="0d",
            not_after=START + timedelta(hours=1),
            root=fingerprint_of(der(ROOT.certificate)),
        )

    async def filled(self, count: int = 2) -> None:
        """Until so many are ready: none of these tests waits for ever, for virtual time ends the wait."""
        with trio.fail_after(120):
            while len(self.pool.ready) < count:  # noqa: ASYNC110 - no event announces it
                await trio.sleep(0.05)


refused = DialFailed(DialReason.REFUSED, "no listener")
unfinished = HandshakeFailed(HandshakeReason.CLOSED, "closed")
Begin = Callable[..., contextlib.AbstractAsyncContextManager[Story]]


@contextlib.asynccontextmanager
async def story(monkeypatch: pytest.MonkeyPatch, upstream: Upstream = DB) -> AsyncIterator[Story]:
    """A pool that runs for the length of the block; afterwards no connection of it is left."""
    told = Story(upstream)
    for name in ("dial", "client_handshake", "identify"):
        monkeypatch.setattr(warm_pool, name, getattr(told, name))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.pool.run)
            yield told
            nursery.cancel_scope.cancel()
        assert told.alive == 0
        assert told.targets.warm is None
    finally:
        for one in told.far:
            one.sock.close()
