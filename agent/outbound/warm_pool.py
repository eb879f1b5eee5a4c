"""Keeps connections of one upstream ready, so that our app's next one costs no round trip to the far side.

One task a connection dials it, shakes hands, and then watches over it: what the far side says is heard, its
end is noticed, and its age is bounded. The pool's own task looks at all of them when something they stand on
has changed, and once a second; it begins new ones where some are missing.

    dial, handshake, identity ──► ready ──take──► our app's
                 │                  └──► discarded, by reason, and made anew
                 └── failed: the endpoint is told on as by any attempt, and the pool is patient

To be ready is not to be good: `take` judges again by the values of that moment, so nothing that was denied,
ejected, closed or replaced meanwhile is ever handed out. After a setback (a failed attempt, or a connection
that the far side ended within PROVEN_SECONDS) one at a time is tried, ever less often.
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
from agent.outbound.outbound import NotServed, identify, server_name
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import ORDERLY, PROVEN_SECONDS, WarmConnection, WarmEvents, WarmReason
from agent.policy.deny_list import NOBODY, DenyList
from agent.policy.source_intentions import SourceIntentions
from agent.relay.close import reset
from agent.snapshot import Snapshot
from certs.contexts import Contexts
from certs.peer import PeerRejected
from upstreams.reach import DialAddress, Unreachable
from upstreams.route import Candidate

LOOK_SECONDS = 1.0  # ejections and failover end by time alone
FIRST_REST, LONGEST_REST = 0.5, 30.0  # seconds after the first setback, doubled with each
_BY_THE_FAR_SIDE = frozenset({WarmReason.REFUSED, WarmReason.CLOSED, WarmReason.LOST})
_YOUNGEST = 0.8  # of the greatest age: they are not all to be renewed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmContext:
    """What all pools of an agent share."""

    snapshot: Snapshot
    clock: Clock
    rng: Random
    events: WarmEvents

    @property
    def handshake_timeout(self) -> float:
        """Seconds, as the registration says now."""
        registration = self.snapshot.registration.value
        assert registration is not None  # an upstream comes out of one
        return registration.handshake_timeout


class WarmPool:
    """The warm connections of one upstream while it wants some (agent.outbound.upstream_state.Pool)."""

    def __init__(self, targets: UpstreamState, grounds: WarmContext) -> None:
        self._targets = targets
        self._grounds = grounds
        self._book = targets.warm_book
        self._wake = trio.Event()
        self._setbacks = 0
        self._try_at = 0.0  # of trio's time; counts after a setback
        self.ready: deque[WarmConnection] = deque()  # the oldest first
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<WarmPool ready={len(self.ready)} of {self._targets.upstream}>"

    async def run(self) -> None:
        """Keep them until cancelled; then none is left."""
        self._targets.warm = self
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wake_on, self._grounds.snapshot.credentials)
                nursery.start_soon(self._wake_on, self._grounds.snapshot.deny_list)
                nursery.start_soon(self._wake_on, self._grounds.snapshot.source_intentions)
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
        """The oldest that can be used at this moment, from now on the caller's; None if there is none."""
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
        """The limit of connections counts these too."""
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
        """What speaks against handing it out at this moment."""
        snapshot, now = self._grounds.snapshot, self._grounds.clock()
        contexts = snapshot.credentials.value
        if contexts is None or contexts.generation != warm.generation:
            return WarmReason.NEW_CREDENTIALS, f"made with generation {warm.generation}"
        deny_list, outgoing = snapshot.deny_list.value or NOBODY, snapshot.source_intentions.value
        objection = objection_to(warm.peer, contexts, now, deny_list, outgoing)
        if objection is not None:
            return objection
        if not self._targets.leads(warm.approach, warm.dialling):
            ejected = not self._targets.failures.share(warm.approach.hop)
            return (WarmReason.EJECTED if ejected else WarmReason.GONE), str(warm.approach)
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
            except Unreachable:  # told wherever endpoints are shown
                return
            if way is None or self._kept_out(way[0]):
                return
            self.under_way += 1
            nursery.start_soon(self._try, *way)

    def _next_look(self) -> float:
        now = trio.current_time()
        return min(now + LOOK_SECONDS, self._try_at) if self._try_at > now else now + LOOK_SECONDS

    def _may_call(self) -> bool:
        contexts = self._grounds.snapshot.credentials.value
        return contexts is not None and contexts.credentials.fault(self._grounds.clock()) is None

    def _kept_out(self, approach: Candidate) -> bool:
        snapshot = self._grounds.snapshot
        contexts, outgoing = snapshot.credentials.value, snapshot.source_intentions.value
        if contexts is None or outgoing is None:
            return False
        denial = outgoing.denial(contexts.credentials.leaf.id, approach.endpoint.expected)
        return denial is not None and not denial.allowed

    # --- one connection ---

    async def _try(self, approach: Candidate, dialling: DialAddress) -> None:
        events, name = self._grounds.events, str(approach)
        if not await contained(events, Where.WARM_CONNECTION, name, self._keep, approach, dialling):
            self._set_back()

    async def _keep(self, approach: Candidate, dialling: DialAddress) -> None:
        """One warm connection's life, up to where somebody takes it or it is discarded."""
        version = self._grounds.snapshot.credentials.version
        try:
            warm = await self._make(approach, dialling)
        except (DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            ours = isinstance(failure, HandshakeFailed | PeerRejected)
            replaced = (
                self._grounds.snapshot.credentials.version != version
            )  # it was judged by roots of the past
            self._failed(approach, dialling, failure, blame=not (ours and replaced))
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

    async def _make(self, approach: Candidate, dialling: DialAddress) -> WarmConnection:
        grounds, upstream = self._grounds, self._targets.upstream
        address = TcpAddress(dialling.host, dialling.port)
        sock = await dial(address, upstream.connect_timeout, shun=self._targets.shun)
        try:
            snapshot = grounds.snapshot
            contexts = snapshot.credentials.value
            assert contexts is not None  # looked at before; a published value is never taken back
            credentials, expected = contexts.credentials, approach.endpoint.expected
            name = server_name(expected, credentials.bundle.trust_domain)
            tls = await client_handshake(sock, contexts.client, name, grounds.handshake_timeout)
            peer = identify(tls, expected, snapshot.credentials, grounds.clock(), snapshot.deny_list)
        except BaseException:
            reset(sock)
            raise
        return WarmConnection(
            sock=sock,
            tls=tls,
            approach=approach,
            dialling=dialling,
            peer=peer,
            ours=Party(id=credentials.leaf.id, serial=credentials.leaf.serial),
            generation=contexts.generation,
            since=trio.current_time(),
        )

    async def _watch(self, warm: WarmConnection) -> None:
        """Until it is gone or too old. Being taken or discarded cancels this in the same moment."""
        age = self._targets.upstream.warm_idle * self._grounds.rng.uniform(_YOUNGEST, 1.0)
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
        """Take it out. Its watch lets go of the descriptor at once, so that another may poll it."""
        self.ready.remove(warm)
        warm.scope.cancel()
        if warm.age >= PROVEN_SECONDS:
            self._setbacks = 0
        self._wake.set()

    def _discard(self, warm: WarmConnection, reason: StrEnum, detail: str) -> None:
        self._let_go(warm)
        warm.part(in_order=reason in ORDERLY)
        if warm.age < PROVEN_SECONDS and reason in _BY_THE_FAR_SIDE:
            self._set_back()
        if reason is WarmReason.REFUSED:
            self._targets.failed(warm.approach)
        self._book.discarded[reason.value] += 1
        self._grounds.events.warm_discarded(self._targets.upstream, warm.approach, reason.value, detail)

    def _failed(
        self,
        approach: Candidate,
        dialling: DialAddress,
        failure: DialFailed | HandshakeFailed | PeerRejected | NotServed,
        *,
        blame: bool,
    ) -> None:
        if blame:
            self._set_back()
            self._targets.failed(approach)
        self._book.failed[failure.reason.value] += 1
        attempt = FailedAttempt(
            endpoint=str(approach), address=str(dialling), reason=failure.reason, detail=failure.detail
        )
        self._grounds.events.warm_failed(self._targets.upstream, attempt)

    def _set_back(self) -> None:
        rest = min(LONGEST_REST, FIRST_REST * 2.0 ** min(self._setbacks, 16))
        self._setbacks += 1
        self._try_at = trio.current_time() + rest * self._grounds.rng.uniform(0.5, 1.0)

    async def _wake_on(self, cell: Latest[Contexts] | Latest[DenyList] | Latest[SourceIntentions]) -> None:
        version = cell.version
        while True:
            _, version = await cell.newer(version)
            self._wake.set()
