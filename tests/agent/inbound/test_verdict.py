"""The verdicts on streams of one tunnel: whatever one was decided from decides again when it has changed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

import pytest

from agent.base.address import TcpAddress
from agent.base.freshness import Confirmation, Freshness
from agent.base.latest import Latest
from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import CloseReason, Direction
from agent.inbound import verdict
from agent.inbound.verdict import Denied, Inbound, InboundReason, StreamJudge
from agent.policy.authorize import Policy, VerdictReason
from agent.policy.deny_list import DenyList, parse_deny_list
from agent.policy.http_mode import HttpMode
from agent.relay.relay import Relay
from certs.bundle import fingerprint_of
from certs.contexts import Contexts
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.agent.connections.test_ledger import Told
from tests.certs.authority import OTHER_TRUST_DOMAIN, TRUST_DOMAIN, Issuer, der
from tests.support.faults import NoFaults
from tests.support.policies import allow_all, deny_all, policy_of
from tests.support.socket_pairs import NOW, contexts_of

ROOT, OTHER_ROOT = Issuer.root(), Issuer.root()
EXPIRY = NOW + timedelta(minutes=10)  # of the caller, before ours
MAX_AGE = 300.0
T = TypeVar("T")
BY_REQUEST = policy_of(
    [
        {
            "SourceName": "web",
            "DestinationName": "db",
            "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}],
        }
    ],
    default_allow=True,
)


def caller(service: str = "web", trust_domain: str = TRUST_DOMAIN) -> Peer:
    return Peer(
        id=ServiceId(trust_domain=TrustDomain.parse(trust_domain), datacenter="dc1", service=service),
        serial="0d",
        not_after=EXPIRY,
        root=fingerprint_of(der(ROOT.certificate)),
    )


@dataclass
class Bench:
    """One tunnel's judge, and the values that it judges by."""

    inbound: Inbound
    credentials: Latest[Contexts]
    policy: Latest[Policy]
    deny_list: Latest[DenyList]
    confirmed: Latest[Confirmation]
    at: list[datetime]  # the present, as the last of them
    peer: Peer = field(default_factory=caller)
    judge: StreamJudge = field(default_factory=StreamJudge)

    def stream(self) -> Connection:
        """Judge a new stream, and return its record. Raises Denied."""
        connection = self.inbound.ledger.begin(Direction.INBOUND, "", lambda: None)
        connection.handling = self.judge.judge(connection, self.peer, self.inbound)
        return connection

    def refusal(self) -> StrEnum:
        """Return why a new stream is refused."""
        with pytest.raises(Denied) as denied:
            self.stream()
        return denied.value.reason


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    at = [NOW]
    confirmed = Latest(Confirmation(NOW, math.inf))
    credentials = Latest(contexts_of(ROOT.leaf(service="db", datacenter="dc2"), ROOT))
    policy, deny_list = Latest(allow_all()), Latest(DenyList())
    with Relay() as relay:
        inbound = Inbound(
            credentials=credentials,
            policy=policy,
            freshness=Freshness(confirmed, MAX_AGE, lambda: at[-1]),
            deny_list=deny_list,
            app=TcpAddress("127.0.0.1", 1),
            relay=relay,
            ledger=Ledger(lambda: at[-1], Told()),
            faults=NoFaults(),
            clock=lambda: at[-1],
            handshake_timeout=1.0,
            connect_timeout=1.0,
            http=HttpMode.IF_NEEDED,
        )
        yield Bench(inbound, credentials, policy, deny_list, confirmed, at)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[Peer]:
    """Who was judged afresh, stream by stream."""
    judged: list[Peer] = []
    afresh = verdict.judge_stream

    def noted(connection: Connection, peer: Peer, inbound: Inbound, now: datetime) -> Handling:
        judged.append(peer)
        return afresh(connection, peer, inbound, now)

    monkeypatch.setattr(verdict, "judge_stream", noted)
    return judged


async def test_while_nothing_changes_one_verdict_serves_all_streams(
    bench: Bench, decided: list[Peer]
) -> None:
    streams = [bench.stream() for _ in range(5)]
    assert len(decided) == 1
    assert {(one.rule, one.intention, one.handling) for one in streams} == {
        ("default policy (allow)", "", Handling.RELAYED_HTTP)
    }
    assert StreamJudge().judge(bench.stream(), bench.peer, bench.inbound)  # another tunnel's own
    assert len(decided) == 2


async def test_a_kept_verdict_names_the_rule_and_its_id(bench: Bench) -> None:
    rule = {"ID": "7", "SourceName": "web", "DestinationName": "db", "Action": "allow"}
    bench.policy.publish(policy_of([rule], default_allow=False))
    first, second = bench.stream(), bench.stream()
    assert second.rule == first.rule != ""
    assert second.intention == first.intention == "7"


def _denied(bench: Bench) -> None:
    bench.policy.publish(deny_all())


def _listed(bench: Bench) -> None:
    bench.deny_list.publish(parse_deny_list(f"{bench.peer.id}\n"))


def _root_removed(bench: Bench) -> None:
    bench.credentials.publish(contexts_of(OTHER_ROOT.leaf(service="db", datacenter="dc2"), OTHER_ROOT))


def _ours_unfit(bench: Bench) -> None:
    held = bench.credentials.value
    assert held is not None
    bench.credentials.publish(replace(held, credentials=replace(held.credentials, unfit="of no root")))


def _caller_expired(bench: Bench) -> None:
    bench.at.append(EXPIRY + timedelta(seconds=1))
    bench.confirmed.publish(Confirmation(bench.at[-1], math.inf))


def _ours_expired(bench: Bench) -> None:
    held = bench.credentials.value
    assert held is not None
    bench.at.append(held.credentials.leaf.not_after + timedelta(seconds=1))
    bench.confirmed.publish(Confirmation(bench.at[-1], math.inf))


def _too_old(bench: Bench) -> None:
    bench.at.append(NOW + timedelta(seconds=MAX_AGE + 1))


def _other_domain(bench: Bench) -> None:
    bench.peer = caller(trust_domain=OTHER_TRUST_DOMAIN)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_denied, VerdictReason.DEFAULT_DENY),
        (_listed, CloseReason.DENY_LISTED),
        (_root_removed, CloseReason.ROOT_REMOVED),
        (_ours_unfit, InboundReason.CREDENTIALS_UNTRUSTED),
        (_caller_expired, CloseReason.PEER_EXPIRED),
        (_too_old, VerdictReason.INTENTIONS_TOO_OLD),
        (_other_domain, CloseReason.ROOT_REMOVED),
    ],
)
async def test_a_change_refuses_the_very_next_stream(
    bench: Bench, change: Callable[[Bench], None], reason: StrEnum
) -> None:
    bench.stream()
    change(bench)
    assert bench.refusal() is reason
    assert bench.refusal() is reason


async def test_our_own_expiry_refuses_the_very_next_stream(bench: Bench) -> None:
    bench.peer = replace(bench.peer, not_after=NOW + timedelta(days=1000))
    bench.stream()
    _ours_expired(bench)
    assert bench.refusal() is InboundReason.CREDENTIALS_EXPIRED


async def test_requests_are_judged_as_soon_as_a_registration_or_an_intention_asks_for_it(
    bench: Bench,
) -> None:
    assert bench.stream().handling is Handling.RELAYED_HTTP
    inbound = bench.inbound
    bench.inbound = replace(inbound, http=HttpMode.ALWAYS)
    assert bench.stream().handling is Handling.BY_REQUEST
    bench.inbound = inbound
    assert bench.stream().handling is Handling.RELAYED_HTTP
    bench.policy.publish(BY_REQUEST)
    assert bench.stream().handling is Handling.BY_REQUEST


def _again(cell: Latest[T]) -> None:
    assert cell.value is not None
    cell.publish(cell.value)


async def test_the_same_value_published_again_is_judged_by_again(bench: Bench, decided: list[Peer]) -> None:
    bench.stream()
    _again(bench.policy)
    bench.stream()
    _again(bench.deny_list)
    bench.stream()
    _again(bench.credentials)
    bench.stream()
    assert len(decided) == 4


async def test_a_clock_that_goes_back_keeps_nothing(bench: Bench, decided: list[Peer]) -> None:
    bench.stream()
    bench.at.append(NOW - timedelta(seconds=1))
    bench.stream()
    assert len(decided) == 2


async def test_neither_denials_nor_audited_calls_nor_judged_requests_are_kept(
    bench: Bench, decided: list[Peer]
) -> None:
    for count, policy in enumerate((deny_all(), replace(deny_all(), audit=True), BY_REQUEST)):
        bench.policy.publish(policy)
        for _ in range(2):
            if policy.intentions.by_request or policy.audit:
                bench.stream()
            else:
                assert bench.refusal() is VerdictReason.DEFAULT_DENY
        assert len(decided) == 2 * count + 2
    assert bench.inbound.ledger.audits() == {"default_deny": 2}  # each stream is counted


async def test_what_was_refused_is_admitted_once_it_may_call_again(bench: Bench) -> None:
    bench.policy.publish(deny_all())
    assert bench.refusal() is VerdictReason.DEFAULT_DENY
    bench.policy.publish(allow_all())
    assert bench.stream().handling is Handling.RELAYED_HTTP
