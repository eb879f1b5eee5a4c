"""Judges open connections again whenever a value has changed by which they were judged.

This happens after each change of the policy, the deny list and the trust bundle, when the intentions become
too old, and when the earliest peer certificate expires.

An HTTP connection is judged by the request that our app is serving, or that has upgraded it; between two
requests only by whether its caller may make requests at all. A connection whose HTTP was relayed unread is
closed once an intention has permissions; its caller connects again, and its requests are then judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import trio

from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Where
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, CloseReason, Direction
from agent.policy.authorize import (
    Policy,
    Verdict,
    VerdictReason,
    authorize,
    authorize_caller,
    authorize_request,
)
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.source_intentions import SourceIntentions
from certs.bundle import TrustBundle
from certs.contexts import Contexts
from certs.peer import Peer

_LOOK = timedelta(seconds=60)  # the longest sleep, since the wall clock may be set meanwhile
_AFTER = timedelta(milliseconds=10)  # a peer is valid up to and including its last moment
_Objection: TypeAlias = tuple[CloseReason, str]
_CLOSED_AS = {
    VerdictReason.NARROWED: CloseReason.NARROWED,
    VerdictReason.INTENTIONS_TOO_OLD: CloseReason.INTENTIONS_TOO_OLD,
}


class Reauthorizer:
    """Judges open connections whenever a value changes, and when the earliest peer expires."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        policy: Latest[Policy],
        freshness: Freshness,
        contexts: Latest[Contexts],
        clock: Clock,
        on_closed: Callable[[int], None],
        faults: FaultEvents,
        grace: float = 0.0,
        deny_list: Latest[DenyList] | None = None,
        outgoing: Latest[SourceIntentions] | None = None,
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._freshness = freshness
        self._contexts = contexts
        self._clock = clock
        self._on_closed = on_closed
        self._faults = faults
        self._grace = grace  # seconds a connection may outlive its peer's certificate
        self._deny_list = deny_list or Latest(NO_ENTRIES)
        self._outgoing = outgoing or Latest()
        self._wake = trio.Event()
        self._next_expiry: datetime | None = None
        self._changed: float | None = None  # the first publication that no connection was judged by yet

    async def run(self) -> None:
        """Judge until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake_on, self._policy)
            nursery.start_soon(self._wake_on_age)
            nursery.start_soon(self._wake_on, self._contexts)
            nursery.start_soon(self._wake_on, self._deny_list)
            nursery.start_soon(self._wake_on, self._outgoing)
            while True:
                self._wake = trio.Event()
                changed, self._changed = self._changed, None
                now = self._clock()
                result = rejudge(
                    self._ledger,
                    self._policy.value,
                    self._contexts.value,
                    now,
                    self._grace,
                    deny_list=self._deny_list.value or NO_ENTRIES,
                    outgoing=self._outgoing.value,
                    too_old_since=self._freshness.too_old_since(),
                )
                for failure in result.failures:
                    self._faults.internal_error(Where.CONNECTION, "a verdict", failure)
                if changed is not None:
                    self._ledger.timings.rejudged.observe(trio.current_time() - changed)
                self._next_expiry = result.next_expiry
                if result.closed:
                    self._on_closed(result.closed)
                rest = _LOOK if result.next_expiry is None else min(_LOOK, result.next_expiry - now + _AFTER)
                with trio.move_on_after(max(0.0, rest.total_seconds())):
                    await self._wake.wait()

    def opened(self, connection: Connection) -> None:
        """Note a connection with a peer, which may be the first to expire."""
        if connection.peer is None or self._grace == math.inf:
            return
        expiry = _expiry(connection.peer, self._grace)
        if self._next_expiry is None or expiry < self._next_expiry:
            self._wake.set()

    async def _wake_on(
        self, cell: Latest[Policy] | Latest[Contexts] | Latest[DenyList] | Latest[SourceIntentions]
    ) -> None:
        version = cell.version
        while True:
            _, version = await cell.newer(version)
            # trio wakes the tasks of two changes in any order
            self._changed = cell.moment if self._changed is None else min(self._changed, cell.moment)
            self._wake.set()

    async def _wake_on_age(self) -> None:
        """Wake when the intentions become too old, and when a confirmation makes them good again."""
        while True:
            await self._freshness.becomes_too_old()
            self._wake.set()
            await self._freshness.is_good_again()
            self._wake.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """How many connections were closed, and when the next one expires: judge again right after that."""

    closed: int
    next_expiry: datetime | None
    failures: tuple[Exception, ...] = ()  # why some connections could not be judged, and were closed


def rejudge(
    ledger: Ledger,
    policy: Policy | None,
    contexts: Contexts | None,
    now: datetime,
    grace: float = 0.0,
    *,
    deny_list: DenyList = NO_ENTRIES,
    outgoing: SourceIntentions | None = None,
    too_old_since: datetime | None,
) -> Rejudged:
    """Close every live connection that would not be admitted now, with the reason.

    A connection whose peer is not identified yet is judged by its own task, by the same values. An open
    connection may outlive its peer's certificate by `grace` seconds, which may be infinite. A connection is
    closed too if judging it raises an unforeseen exception.
    """
    trust = _Trust(
        bundle=None if contexts is None else contexts.credentials.bundle,
        deny_list=deny_list,
        now=now,
        grace=grace,
    )
    closed = 0
    expiries, failures = [], []
    for connection in (*ledger.tunnels(), *ledger.live()):
        peer = connection.peer
        if peer is None or connection.closing is not None:
            continue
        try:
            objection = trust.objection(peer)
            if objection is None and connection.handling is not Handling.TUNNEL:
                # A tunnel stays whatever the intentions are, so that it can answer why a stream is refused.
                objection = (
                    _by_policy(ledger, connection, peer, policy, too_old_since)
                    if connection.direction is Direction.INBOUND
                    else _by_outgoing(ledger, connection, peer, outgoing)
                )
        except Exception as error:  # noqa: BLE001 - this connection is closed, and the others are judged
            failures.append(error)
            objection = CloseReason.INTERNAL_ERROR, f"{peer.id} cannot be judged; the log has more"
        if objection is None:
            if grace < math.inf:
                expiries.append(_expiry(peer, grace))
        else:
            connection.close(*objection)
            closed += connection.handling is not Handling.TUNNEL
    return Rejudged(closed=closed, next_expiry=min(expiries, default=None), failures=tuple(failures))


def _expiry(peer: Peer, grace: float) -> datetime:
    """Return when an open connection to that peer must end; a certificate may end with the calendar."""
    try:
        return peer.not_after + timedelta(seconds=grace)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """Whether a peer's identity still holds; neither intentions nor audit mode affect that."""

    bundle: TrustBundle | None
    deny_list: DenyList
    now: datetime
    grace: float

    def objection(self, peer: Peer) -> _Objection | None:
        bundle = self.bundle
        if denied := self.deny_list.objection(peer):
            return CloseReason.DENY_LISTED, f"{peer.id}: {denied}"
        if (self.now - peer.not_after).total_seconds() > self.grace:
            return CloseReason.PEER_EXPIRED, f"{peer.id} expired at {peer.not_after.isoformat()}"
        if bundle and (peer.id.trust_domain != bundle.trust_domain or bundle.root(peer.root) is None):
            return CloseReason.ROOT_REMOVED, f"{peer.id} ends in a root that is no longer trusted"
        return None


def objection_to(
    peer: Peer,
    contexts: Contexts,
    now: datetime,
    deny_list: DenyList = NO_ENTRIES,
    outgoing: SourceIntentions | None = None,
) -> tuple[CloseReason, str] | None:
    """Return what would close an open outbound connection to that peer now, without any grace.

    None if nothing.
    """
    credentials = contexts.credentials
    trust = _Trust(bundle=credentials.bundle, deny_list=deny_list, now=now, grace=0.0)
    objection = trust.objection(peer)
    if objection is not None or outgoing is None:
        return objection
    denial = outgoing.denial(credentials.leaf.id, peer.id)
    return None if denial is None or denial.allowed else _withdrawn(peer, denial)


def _by_policy(
    ledger: Ledger,
    connection: Connection,
    peer: Peer,
    policy: Policy | None,
    too_old_since: datetime | None,
) -> _Objection | None:
    if policy is None:
        return None
    verdict = _verdict(connection, peer, policy, too_old_since)
    if objection := _taken_note(ledger, connection, peer, verdict):
        return objection
    if policy.intentions.by_request and connection.handling is Handling.RELAYED_HTTP:
        return CloseReason.BY_REQUEST_NOW, f"{peer.id}: HTTP requests are judged from now on"
    return None


def _by_outgoing(
    ledger: Ledger, connection: Connection, peer: Peer, outgoing: SourceIntentions | None
) -> _Objection | None:
    if outgoing is None or connection.ours is None:
        return None
    denial = outgoing.denial(connection.ours.id, peer.id)
    return None if denial is None else _taken_note(ledger, connection, peer, denial)


def _taken_note(ledger: Ledger, connection: Connection, peer: Peer, verdict: Verdict) -> _Objection | None:
    """Note the verdict in the connection or the audit counters; return why it must be closed, if so."""
    if not verdict.allowed:
        connection.withdrawn(verdict.rule, verdict.intention)
        return _withdrawn(peer, verdict)
    if verdict.audited:
        audited = Audited(reason=verdict.reason, rule=verdict.rule, intention=verdict.intention)
        ledger.audit(connection, audited)
    return None


def _withdrawn(peer: Peer, verdict: Verdict) -> _Objection:
    reason = _CLOSED_AS.get(verdict.reason, CloseReason.INTENTION_WITHDRAWN)
    return reason, f"{peer.id}: {verdict.rule}"


def _verdict(connection: Connection, peer: Peer, policy: Policy, too_old_since: datetime | None) -> Verdict:
    if connection.request is not None:
        return authorize_request(policy, peer.id, connection.request, too_old_since)
    judge = authorize if connection.handling is Handling.RELAYED else authorize_caller
    return judge(policy, peer.id, too_old_since)
