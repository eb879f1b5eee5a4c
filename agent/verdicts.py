"""Verdicts are live: open connections are judged again whenever what they were judged by has changed.

Run after each change of intentions, of the trust bundle, and when the earliest peer certificate expires.

An HTTP connection is judged by the request our app is serving, or has been upgraded by; between two requests
only by whether its caller may ask at all. One whose HTTP was relayed unread, while no intention asked for
more, is closed once one does: its caller comes back, and is looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.intentions import Intentions, Verdict, authorize, authorize_caller, authorize_request
from agent.ledger import CloseReason, Connection, Direction, Handling, Ledger
from certs.bundle import TrustBundle
from certs.contexts import Contexts
from certs.peer import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """How many connections were closed, and when the next has to be for its age: judge right after that."""

    closed: int
    next_expiry: datetime | None


def rejudge(
    ledger: Ledger,
    intentions: Intentions | None,
    contexts: Contexts | None,
    now: datetime,
    grace: float = 0.0,
) -> Rejudged:
    """Close every live connection that would not be let through at this moment, with the reason.

    A connection whose peer has not been identified yet is judged by its own task, by the same values. One
    that is open may outlive its peer's certificate by `grace` seconds, which may be infinite.
    """
    bundle = None if contexts is None else contexts.credentials.bundle
    closed = 0
    expiries = []
    for connection in ledger.live():
        peer = connection.peer
        if peer is None or connection.closing is not None:
            continue
        objection = _objection(connection, peer, intentions, bundle, now=now, grace=grace)
        if objection is None:
            if grace < math.inf:
                expiries.append(peer.not_after + timedelta(seconds=grace))
        else:
            connection.close(*objection)
            closed += 1
    return Rejudged(closed=closed, next_expiry=min(expiries, default=None))


def _objection(
    connection: Connection,
    peer: Peer,
    intentions: Intentions | None,
    bundle: TrustBundle | None,
    *,
    now: datetime,
    grace: float,
) -> tuple[CloseReason, str] | None:
    if (now - peer.not_after).total_seconds() > grace:
        return CloseReason.PEER_EXPIRED, f"{peer.id} expired at {peer.not_after.isoformat()}"
    if bundle is not None and (peer.id.trust_domain != bundle.trust_domain or bundle.root(peer.root) is None):
        return CloseReason.ROOT_REMOVED, f"{peer.id} ends in a root that is no longer trusted"
    if connection.direction is Direction.INBOUND and intentions is not None:
        verdict = _verdict(connection, peer, intentions)
        if not verdict.allowed:
            return CloseReason.INTENTION_DENIED, f"{peer.id}: {verdict.rule}"
        if intentions.by_request and connection.handling is Handling.RELAYED_HTTP:
            return CloseReason.BY_REQUEST_NOW, f"{peer.id}: HTTP requests are judged from now on"
    return None


def _verdict(connection: Connection, peer: Peer, intentions: Intentions) -> Verdict:
    if connection.request is not None:
        return authorize_request(intentions, peer.id, connection.request)
    if connection.handling is Handling.RELAYED:
        return authorize(intentions, peer.id)
    return authorize_caller(intentions, peer.id)
