"""Which open connections no longer may be: a table over what can change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.reauthorize import Rejudged, rejudge
from agent.connections.records import CloseReason, Direction, Party
from agent.http1.request import HttpRequest
from agent.policy.authorize import Policy
from agent.policy.source_intentions import SourceIntentions, parse_outgoing
from certs.bundle import fingerprint_of
from certs.contexts import Contexts
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.agent.connections.test_ledger import Told
from tests.certs.authority import OTHER_TRUST_DOMAIN, TRUST_DOMAIN, Issuer, der
from tests.support.policies import policy_of
from tests.support.socket_pairs import contexts_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRY = NOW + timedelta(hours=1)
ROOT = Issuer.root()
ALLOW = policy_of(None, "db", default_allow=True)
DENY = policy_of(None, "db", default_allow=False)


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return contexts_of(ROOT.leaf(), ROOT)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(lambda: NOW, Told())


def peer(service: str = "web", *, trust_domain: str = TRUST_DOMAIN, root: Issuer = ROOT) -> Peer:
    return Peer(
        id=ServiceId(trust_domain=TrustDomain.parse(trust_domain), datacenter="dc1", service=service),
        serial="0d",
        not_after=EXPIRY,
        root=fingerprint_of(der(root.certificate)),
    )


@pytest.fixture(params=list(Direction))
def connection(ledger: Ledger, request: pytest.FixtureRequest) -> Iterator[Connection]:
    connection = Connection(
        number=1, direction=request.param, caller="", upstream="", since=NOW, began=0, on_opened=Told().opened
    )
    ledger._live[1] = connection
    connection.peer = peer()
    yield connection
    del ledger._live[1]


def judged(
    ledger: Ledger,
    contexts: Contexts | None,
    policy: Policy | None = ALLOW,
    at: datetime = NOW,
    *,
    outgoing: SourceIntentions | None = None,
    too_old_since: datetime | None = None,
) -> Rejudged:
    return rejudge(ledger, policy, contexts, at, outgoing=outgoing, too_old_since=too_old_since)


def test_nothing_lives(ledger: Ledger, contexts: Contexts) -> None:
    assert judged(ledger, contexts) == Rejudged(closed=0, next_expiry=None)


def test_still_allowed(ledger: Ledger, connection: Connection, contexts: Contexts) -> None:
    assert judged(ledger, contexts) == Rejudged(closed=0, next_expiry=EXPIRY)
    assert judged(ledger, None, None) == Rejudged(
        closed=0, next_expiry=EXPIRY
    )  # nothing is known, nothing changed
    assert connection.closing is None


def test_denied_by_intentions_inbound_only(
    ledger: Ledger, connection: Connection, contexts: Contexts
) -> None:
    result = judged(ledger, contexts, DENY)
    if connection.direction is Direction.INBOUND:
        assert (result.closed, connection.closing) == (1, CloseReason.INTENTION_WITHDRAWN)
        assert "default policy (deny)" in connection.detail
        assert judged(ledger, contexts, DENY).closed == 0  # once
    else:
        assert (result.closed, connection.closing) == (0, None)


GET_ONLY = policy_of(
    [
        {
            "SourceName": "web",
            "DestinationName": "db",
            "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}],
        }
    ],
    "db",
    default_allow=False,
)
GET, PUT = (HttpRequest(method=method, paths=("/",), headers={}) for method in ("GET", "PUT"))


@pytest.mark.parametrize(
    ("handling", "request_under_way", "closing"),
    [
        (Handling.RELAYED, None, CloseReason.INTENTION_WITHDRAWN),  # bytes that no intention can judge
        (Handling.RELAYED_HTTP, None, CloseReason.BY_REQUEST_NOW),
        (Handling.BY_REQUEST, None, None),
        (Handling.BY_REQUEST, GET, None),
        (Handling.BY_REQUEST, PUT, CloseReason.INTENTION_WITHDRAWN),
    ],
)
async def test_permissions_are_for_what_a_connection_carries(
    ledger: Ledger,
    contexts: Contexts,
    handling: Handling,
    request_under_way: HttpRequest | None,
    closing: CloseReason | None,
) -> None:
    with ledger.open(Direction.INBOUND, "caller") as connection:
        connection.peer = peer()
        connection.handling = handling
        connection.request = request_under_way
        assert judged(ledger, contexts, ALLOW).closed == 0
        judged(ledger, contexts, GET_ONLY)
        assert connection.closing is closing


async def test_one_that_is_not_identified_yet_keeps_none_of_the_others(
    ledger: Ledger, contexts: Contexts
) -> None:
    opened = [ledger.open(Direction.INBOUND, "caller") for _ in range(3)]
    with opened[0], opened[1] as second, opened[2] as third:
        second.peer = third.peer = peer()
        assert judged(ledger, contexts, DENY).closed == 2
        assert second.closing is third.closing is CloseReason.INTENTION_WITHDRAWN


@pytest.mark.parametrize(("seconds", "closed"), [(-1, 0), (0, 0), (0.001, 1)])
def test_expired(
    ledger: Ledger, connection: Connection, contexts: Contexts, seconds: float, closed: int
) -> None:
    assert judged(ledger, contexts, at=EXPIRY + timedelta(seconds=seconds)).closed == closed
    assert connection.closing is (CloseReason.PEER_EXPIRED if closed else None)


@pytest.mark.parametrize(("grace", "seconds", "closed"), [(60, 59, 0), (60, 61, 1), (math.inf, 10**6, 0)])
def test_expired_but_within_its_grace(
    ledger: Ledger,
    connection: Connection,
    contexts: Contexts,
    *,
    grace: float,
    seconds: float,
    closed: int,
) -> None:
    result = rejudge(ledger, ALLOW, contexts, EXPIRY + timedelta(seconds=seconds), grace, too_old_since=None)
    assert result.closed == closed
    if not closed:
        assert result.next_expiry == (None if grace == math.inf else EXPIRY + timedelta(seconds=grace))


def test_its_root_is_gone(ledger: Ledger, connection: Connection) -> None:
    new = Issuer.root()
    assert judged(ledger, contexts_of(new.leaf(), new, ROOT)).closed == 0
    assert judged(ledger, contexts_of(new.leaf(), new)).closed == 1
    assert connection.closing is CloseReason.ROOT_REMOVED


def test_its_trust_domain_is_ours_no_longer(
    ledger: Ledger, connection: Connection, contexts: Contexts
) -> None:
    connection.peer = peer(trust_domain=OTHER_TRUST_DOMAIN)
    assert judged(ledger, contexts).closed == 1
    assert connection.closing is CloseReason.ROOT_REMOVED


def test_not_identified_yet(ledger: Ledger, connection: Connection, contexts: Contexts) -> None:
    connection.peer = None
    assert judged(ledger, contexts, DENY) == Rejudged(closed=0, next_expiry=None)


def test_intentions_that_are_too_old_let_nobody_go_on(
    ledger: Ledger, connection: Connection, contexts: Contexts
) -> None:
    result = judged(ledger, contexts, too_old_since=NOW)
    if connection.direction is Direction.INBOUND:
        assert (result.closed, connection.closing) == (1, CloseReason.INTENTIONS_TOO_OLD)
        assert connection.rule.startswith("intentions are too old since 2026-01-01T00:00:00+00:00")
    else:
        assert (result.closed, connection.closing) == (0, None)


BARRED = parse_outgoing([{"SourceName": "web", "DestinationName": "db", "Action": "deny"}])
ELSEWHERE = {"destination-datacenters": "dc9"}
NARROWED = parse_outgoing(
    [{"SourceName": "web", "DestinationName": "db", "Action": "allow", "Meta": ELSEWHERE}]
)


@pytest.mark.parametrize(
    ("outgoing", "reason"),
    [(BARRED, CloseReason.INTENTION_WITHDRAWN), (NARROWED, CloseReason.NARROWED)],
)
def test_our_own_list_no_longer_lets_us_call(
    ledger: Ledger,
    connection: Connection,
    contexts: Contexts,
    outgoing: SourceIntentions,
    reason: CloseReason,
) -> None:
    connection.peer = peer("db")
    connection.ours = Party(id=peer("web").id, serial="0a")
    for harmless in (None, parse_outgoing(None), replace(outgoing, audit=True)):
        assert judged(ledger, contexts, outgoing=harmless).closed == 0
    outbound = connection.direction is Direction.OUTBOUND
    assert ledger.audits() == ({outgoing_reason(outgoing): 1} if outbound else {})
    assert judged(ledger, contexts, outgoing=outgoing).closed == outbound
    assert connection.closing is (reason if outbound else None)
    assert connection.rule.startswith("web => db") is outbound


def outgoing_reason(outgoing: SourceIntentions) -> str:
    return "intention_deny" if outgoing is BARRED else "narrowed_by_datacenter"
