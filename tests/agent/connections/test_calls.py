"""Who has called whom, counted for a bounded number of names."""

from __future__ import annotations

from enum import StrEnum

import pytest

from agent.connections.calls import MOST, OTHERS, UNPROVEN
from agent.connections.ledger import Ledger
from agent.connections.records import CloseReason, Direction
from agent.net.handshake import HandshakeReason
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.scenarios.recorder import Recorder
from tests.support.two_sidecars import now


def peer(name: str) -> Peer:
    identity = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service=name)
    return Peer(id=identity, serial="01", not_after=now(), root="")


def book() -> Ledger:
    return Ledger(now, Recorder())


async def test_allowed_and_denied_callers_are_counted_by_name() -> None:
    ledger = book()
    for reason, opened in ((Ending.CLEAN, True), (Ending.CLEAN, True), (VerdictReason.INTENTION_DENY, False)):
        with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
            connection.peer = peer("web")
            if opened:
                connection.relaying()
            connection.end(reason)
    with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
        connection.end(HandshakeReason.NO_CERTIFICATE)
    assert ledger.calls.counts(Direction.INBOUND) == {
        "web@dc1": {"allowed": 2, "intention_deny": 1},
        UNPROVEN: {"no_certificate": 1},
    }
    assert ledger.calls.counts(Direction.OUTBOUND) == {}


async def test_a_denial_after_the_first_bytes_is_no_served_call() -> None:
    ledger = book()
    with ledger.open(Direction.OUTBOUND, "1.2.3.4:5", "db@dc2") as connection:
        connection.relaying()
        connection.end(OutboundReason.DENIED_BY_PEER)
    assert ledger.calls.counts(Direction.OUTBOUND) == {"db@dc2": {"denied_by_peer": 1}}


@pytest.mark.parametrize(
    "reason",
    [
        CloseReason.INTENTION_WITHDRAWN,
        CloseReason.INTENTIONS_TOO_OLD,
        CloseReason.NARROWED,
        CloseReason.DENY_LISTED,
        CloseReason.ROOT_REMOVED,
        CloseReason.PEER_EXPIRED,
    ],
)
async def test_a_connection_that_a_later_verdict_cuts_is_no_served_call(reason: CloseReason) -> None:
    ledger = book()
    with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
        connection.peer = peer("web")
        connection.relaying()
        connection.close(reason)
    assert ledger.calls.counts(Direction.INBOUND) == {"web@dc1": {reason.value: 1}}


@pytest.mark.parametrize("reason", [CloseReason.BY_REQUEST_NOW, CloseReason.DRAIN_DEADLINE, Ending.TLS_RESET])
async def test_a_connection_that_ends_otherwise_was_served(reason: StrEnum) -> None:
    ledger = book()
    with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
        connection.peer = peer("web")
        connection.relaying()
        connection.end(reason)
    assert ledger.calls.counts(Direction.INBOUND) == {"web@dc1": {"allowed": 1}}


async def test_ten_thousand_connections_of_a_thousand_callers_do_not_grow_the_table() -> None:
    ledger = book()
    for number in range(10_000):
        with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
            connection.peer = peer(f"web-{number % 1000}")
            connection.end(VerdictReason.DEFAULT_DENY)
    counts = ledger.calls.counts(Direction.INBOUND)
    assert len(counts) == MOST + 1
    assert counts[OTHERS] == {"default_deny": 10_000 - 10 * MOST}
