"""Verdicts are live: open connections are judged again whenever what they were judged by has changed.

Run after each change of intentions, of the deny list, of the trust bundle, and when the earliest peer
certificate expires.

An HTTP connection is judged by the request our app is serving, or has been upgraded by; between two requests
only by whether its caller may ask at all. One whose HTTP was relayed unread, while no intention asked for
more, is closed once one does: its caller comes back, and is looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, CloseReason, Direction
from agent.policy.deny_list import NOBODY, DenyList
from agent.policy.intentions import (
    Intentions,
    Verdict,
    VerdictReason,
    authorize,
    authorize_caller,
    authorize_request,
)
from agent.policy.source_intentions import SourceIntentions
from certs.bundle import TrustBundle
from certs.contexts import Contexts
from certs.peer import Peer

_Objection: TypeAlias = tuple[CloseReason, str]
_CLOSED_AS = {
    VerdictReason.NARROWED: CloseReason.NARROWED,
    VerdictReason.INTENTIONS_TOO_OLD: CloseReason.INTENTIONS_TOO_OLD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """How many connections were closed, and when the next has to be for its age: judge right after that."""

    closed: int
    next_expiry: datetime | None
    failures: tuple[Exception, ...] = ()  # why some could not be judged, and were closed


def rejudge(
    ledger: Ledger,
    intentions: Intentions | None,
    contexts: Contexts | None,
    now: datetime,
    grace: float = 0.0,
    *,
    deny_list: DenyList = NOBODY,
    outgoing: SourceIntentions | None = None,
) -> Rejudged:
    """Close every live connection that would not be let through at this moment, with the reason.

    A connection whose peer has not been identified yet is judged by its own task, by the same values. One
    that is open may outlive its peer's certificate by `grace` seconds, which may be infinite. One that cannot
    be judged, for an exception that nobody foresaw, would not be let through.
    """
    trust = _Trust(
        bundle=None if contexts is None else contexts.credentials.bundle,
        deny_list=deny_list,
        now=now,
        grace=grace,
    )
    closed = 0
    expiries, failures = [], []
    for connection in ledger.live():
        peer = connection.peer
        if peer is None or connection.closing is not None:
            continue
        try:
            objection = trust.objection(peer) or (
                _by_intentions(ledger, connection, peer, intentions)
                if connection.direction is Direction.INBOUND
                else _by_outgoing(ledger, connection, peer, outgoing)
            )
        except Exception as error:  # noqa: BLE001 - who cannot be judged is cut, and the others are judged
            failures.append(error)
            objection = CloseReason.INTERNAL_ERROR, f"{peer.id} cannot be judged; the log has more"
        if objection is None:
            if grace < math.inf:
                expiries.append(peer.not_after + timedelta(seconds=grace))
        else:
            connection.close(*objection)
            closed += 1
    return Rejudged(closed=closed, next_expiry=min(expiries, default=None), failures=tuple(failures))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """Whether a peer is still who it has proven to be: no intention, and no audit, has a say in it."""

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
    deny_list: DenyList = NOBODY,
    outgoing: SourceIntentions | None = None,
) -> tuple[CloseReason, str] | None:
    """What would close an open outbound connection to that peer at this moment, without any grace."""
    credentials = contexts.credentials
    trust = _Trust(bundle=credentials.bundle, deny_list=deny_list, now=now, grace=0.0)
    objection = trust.objection(peer)
    if objection is not None or outgoing is None:
        return objection
    denial = outgoing.denial(credentials.leaf.id, peer.id)
    return None if denial is None or denial.allowed else _withdrawn(peer, denial)


def _by_intentions(
    ledger: Ledger, connection: Connection, peer: Peer, intentions: Intentions | None
) -> _Objection | None:
    if intentions is None:
        return None
    verdict = _verdict(connection, peer, intentions)
    if objection := _taken_note(ledger, connection, peer, verdict):
        return objection
    if intentions.by_request and connection.handling is Handling.RELAYED_HTTP:
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
    """What the verdict has against the connection, by the rule it now goes by; audit only counts."""
    if not verdict.allowed:
        connection.rule = verdict.rule
        return _withdrawn(peer, verdict)
    if verdict.audited:
        ledger.audit(connection, Audited(reason=verdict.reason, rule=verdict.rule))
    return None


def _withdrawn(peer: Peer, verdict: Verdict) -> _Objection:
    reason = _CLOSED_AS.get(verdict.reason, CloseReason.INTENTION_WITHDRAWN)
    return reason, f"{peer.id}: {verdict.rule}"


def _verdict(connection: Connection, peer: Peer, intentions: Intentions) -> Verdict:
    if connection.request is not None:
        return authorize_request(intentions, peer.id, connection.request)
    if connection.handling is Handling.RELAYED:
        return authorize(intentions, peer.id)
    return authorize_caller(intentions, peer.id)
