"""Keeps connections of one upstream ready, so that the next connection of our app costs no round trip.

One task for each connection dials it, shakes hands, and then watches it: it reads what the far side sends,
notices its end, and bounds its age. The pool's own task checks all connections when a value they depend on
has changed, and once a second; it starts new ones where some are missing.

    dial, handshake, identity ──► ready ──take──► our app's
                 │                  └──► discarded, by reason, and replaced
                 └── failed: counts against the endpoint as any attempt does, and the pool backs off

A ready connection may have become unusable, so `take` judges it again by the present values: it never hands
out one that was denied, ejected, closed or replaced meanwhile. After a setback (a failed attempt, or a
connection that the far side ended within PROVEN_SECONDS) the pool makes one at a time, with growing pauses.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import trio

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.containment import Where, contained
from agent.base.latest import Latest
from agent.connections.reauthorize import objection_to
from agent.connections.records import FailedAttempt, Party
from agent.net.dial import DialFailed, dial
from agent.net.handshake import HandshakeFailed, client_handshake
from agent.net.shortage import OUT_OF_RESOURCES
from agent.outbound.identify import identify, server_name
from agent.outbound.reasons import NotServed
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import ORDERLY, PROVEN_SECONDS, WarmConnection, WarmEvents, WarmReason
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.source_intentions import SourceIntentions
from agent.relay.close import reset
from agent.snapshot import Snapshot
from certs.contexts import Contexts
from certs.peer import PeerRejected
from upstreams.reach import DialAddress, Unreachable
from upstreams.route import Candidate

LOOK_SECONDS = 1.0  # the interval of checks, since ejections and failover also end by time alone
FIRST_REST, LONGEST_REST = 0.5, 30.0  # seconds after the first setback, doubled with each further one
_BY_THE_FAR_SIDE = frozenset({WarmReason.REFUSED, WarmReason.CLOSED, WarmReason.LOST})
_YOUNGEST = 0.8  # of `warm_idle`: ages differ, so that not all connections are replaced at once


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmContext:
    """What all pools of an agent share."""

    snapshot: Snapshot
    clock: Clock
    rng: Random
    events: WarmEvents

    @property
    def handshake_timeout(self) -> float:
        """The handshake timeout in seconds, by the present registration."""
        registration = self.snapshot.registration.value
        assert registration is not None  # upstreams come from a registration
        return registration.handshake_timeout


class WarmPool:
    """The warm connections of one upstream (agent.outbound.upstream_state.Pool)."""

    def __init__(self, targets: UpstreamState, context: WarmContext) -> None:
        self._targets = targets
        self._context = context
        self._book = targets.warm_book
        self._wake = trio.Event()
        self._setbacks = 0
        self._try_at = 0.0  # by trio's clock; applies after a setback
        self.ready: deque[WarmConnection] = deque()  # the oldest first
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<WarmPool ready={len(self.ready)} of {self._targets.upstream}>"

    async def run(self) -> None:
        """Keep the connections until cancelled, then close all of them."""
        self._targets.warm = self
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wake_on, self._context.snapshot.credentials)
                nursery.start_soon(self._wake_on, self._context.snapshot.deny_list)
                nursery.start_soon(self._wake_on, self._context.snapshot.source_intentions)
                while True:
                    self._wake = trio.Event()
                    self._look()
                    self._refill(nursery)
                    with trio.move_on_at(self._next_look()):
                        await self._wake.wait()
        finally:
            if self._targets.warm is self:
                self._targets.warm = None

    def take(self) -> WarmConnection | None:
        """Return the oldest usable connection, which the caller then owns; None if there is none."""
        while self.ready:
            warm = self.ready[0]
            objection = self._objection(warm)
            if objection is None:
                self._let_go(warm)
                self._book.used += 1
                return warm
            self._discard(warm, *objection)
        self._book.missed += 1
        return None

    def _wanted(self) -> int:
        """Return how many to keep; `max_connections` counts warm ones too."""
        upstream = self._targets.upstream
        if upstream.max_connections is None:
            return upstream.warm
        return max(0, min(upstream.warm, upstream.max_connections - len(self._targets.connections)))

    def _look(self) -> None:
        for warm in tuple(self.ready):
            objection = self._objection(warm)
            if objection is not None:
                self._discard(warm, *objection)
        for _ in range(len(self.ready) - self._wanted()):
            self._discard(self.ready[0], WarmReason.NOT_WANTED, "there are more than there may be")

    def _objection(self, warm: WarmConnection) -> tuple[StrEnum, str] | None:
        """Return why the connection must not be handed out now; None if it may be."""
        snapshot, now = self._context.snapshot, self._context.clock()
        contexts = snapshot.credentials.value
        if contexts is None or contexts.generation != warm.generation:
            return WarmReason.NEW_CREDENTIALS, f"made with generation {warm.generation}"
        deny_list, outgoing = snapshot.deny_list.value or NO_ENTRIES, snapshot.source_intentions.value
        objection = objection_to(warm.peer, contexts, now, deny_list, outgoing)
        if objection is not None:
            return objection
        if not self._targets.leads(warm.candidate, warm.dialling):
            ejected = not self._targets.failures.share(warm.candidate.hop)
            return (WarmReason.EJECTED if ejected else WarmReason.GONE), str(warm.candidate)
        return warm.listen()

    def _refill(self, nursery: trio.Nursery) -> None:
        missing = self._wanted() - len(self.ready) - self.under_way
        if self._setbacks:
            missing = min(missing, 1 - self.under_way) if trio.current_time() >= self._try_at else 0
        for _ in range(missing):
            if not self._may_call():
                return
            try:
                way = self._targets.first_choice()
            except Unreachable:  # `/status` and `sidecar doctor` show it
                return
            if way is None or self._denied(way[0]):
                return
            self.under_way += 1
            nursery.start_soon(self._try, *way)

    def _next_look(self) -> float:
        now = trio.current_time()
        return min(now + LOOK_SECONDS, self._try_at) if self._try_at > now else now + LOOK_SECONDS

    def _may_call(self) -> bool:
        contexts = self._context.snapshot.credentials.value
        return contexts is not None and contexts.credentials.fault(self._context.clock()) is None

    def _denied(self, candidate: Candidate) -> bool:
        snapshot = self._context.snapshot
        contexts, outgoing = snapshot.credentials.value, snapshot.source_intentions.value
        if contexts is None or outgoing is None:
            return False
        denial = outgoing.denial(contexts.credentials.leaf.id, candidate.endpoint.expected)
        return denial is not None and not denial.allowed

    # --- one connection ---

    async def _try(self, candidate: Candidate, dialling: DialAddress) -> None:
        events, name = self._context.events, str(candidate)
        if not await contained(events, Where.WARM_CONNECTION, name, self._keep, candidate, dialling):
            self._set_back()

    async def _keep(self, candidate: Candidate, dialling: DialAddress) -> None:
        """Make one warm connection and watch it until it is taken or discarded."""
        version = self._context.snapshot.credentials.version
        try:
            warm = await self._make(candidate, dialling)
        except (DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            ours = isinstance(failure, HandshakeFailed | PeerRejected)
            replaced = (
                self._context.snapshot.credentials.version != version
            )  # it was judged by roots of the past
            self._failed(candidate, dialling, failure, blame=not (ours and replaced))
            return
        finally:
            self.under_way -= 1
            self._wake.set()
        self._book.made += 1
        self.ready.append(warm)
        try:
            with warm.scope:
                await self._watch(warm)
        finally:
            if warm in self.ready:
                self._discard(warm, WarmReason.NOT_WANTED, "the pool ends")

    async def _make(self, candidate: Candidate, dialling: DialAddress) -> WarmConnection:
        context, upstream = self._context, self._targets.upstream
        address = TcpAddress(dialling.host, dialling.port)
        sock = await dial(address, upstream.connect_timeout, shun=self._targets.shun)
        try:
            snapshot = context.snapshot
            contexts = snapshot.credentials.value
            assert contexts is not None  # looked at before; a published value is never taken back
            credentials, expected = contexts.credentials, candidate.endpoint.expected
            name = server_name(expected, credentials.bundle.trust_domain)
            tls = await client_handshake(sock, contexts.client, name, context.handshake_timeout)
            peer = identify(tls, expected, snapshot.credentials, context.clock(), snapshot.deny_list)
        except BaseException:
            reset(sock)
            raise
        return WarmConnection(
            sock=sock,
            tls=tls,
            candidate=candidate,
            dialling=dialling,
            peer=peer,
            ours=Party(id=credentials.leaf.id, serial=credentials.leaf.serial),
            generation=contexts.generation,
            since=trio.current_time(),
        )

    async def _watch(self, warm: WarmConnection) -> None:
        """Watch until the far side ends it or it is too old. Taking or discarding it cancels this at once."""
        age = self._targets.upstream.warm_idle * self._context.rng.uniform(_YOUNGEST, 1.0)
        with trio.move_on_after(age):
            while True:
                await trio.lowlevel.wait_readable(warm.sock)
                if warm not in self.ready:  # taken after it became readable, before we ran
                    return
                gone = warm.listen()
                if gone is not None:
                    self._discard(warm, *gone)
                    return
        if warm in self.ready:
            self._discard(warm, WarmReason.IDLE, f"after {warm.age:.1f} s")

    # --- what becomes of it ---

    def _let_go(self, warm: WarmConnection) -> None:
        """Remove it. Its watch releases the descriptor at once, so that the relay may poll it."""
        self.ready.remove(warm)
        warm.scope.cancel()
        if warm.age >= PROVEN_SECONDS:
            self._setbacks = 0
        self._wake.set()

    def _discard(self, warm: WarmConnection, reason: StrEnum, detail: str) -> None:
        self._let_go(warm)
        warm.close(in_order=reason in ORDERLY)
        if warm.age < PROVEN_SECONDS and reason in _BY_THE_FAR_SIDE:
            self._set_back()
        if reason is WarmReason.REFUSED:
            self._targets.failed(warm.candidate)
        self._book.discarded[reason.value] += 1
        self._context.events.warm_discarded(self._targets.upstream, warm.candidate, reason.value, detail)

    def _failed(
        self,
        candidate: Candidate,
        dialling: DialAddress,
        failure: DialFailed | HandshakeFailed | PeerRejected | NotServed,
        *,
        blame: bool,
    ) -> None:
        if blame:
            self._set_back()
            if failure.reason != OUT_OF_RESOURCES:
                self._targets.failed(candidate)
        self._book.failed[failure.reason.value] += 1
        attempt = FailedAttempt(
            endpoint=str(candidate), address=str(dialling), reason=failure.reason, detail=failure.detail
        )
        self._context.events.warm_failed(self._targets.upstream, attempt)

    def _set_back(self) -> None:
        rest = min(LONGEST_REST, FIRST_REST * 2.0 ** min(self._setbacks, 16))
        self._setbacks += 1
        self._try_at = trio.current_time() + rest * self._context.rng.uniform(0.5, 1.0)

    async def _wake_on(self, cell: Latest[Contexts] | Latest[DenyList] | Latest[SourceIntentions]) -> None:
        version = cell.version
        while True:
            _, version = await cell.newer(version)
            self._wake.set()
