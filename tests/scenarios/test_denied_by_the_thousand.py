"""Denied callers never reach the app, however often they come."""

from __future__ import annotations

import pytest
import trio

from agent.connections.records import Direction
from agent.inbound.verdict import InboundReason
from agent.net.handshake import HandshakeFailed
from agent.policy.authorize import VerdictReason
from agent.policy.deny_list import parse_deny_list
from tests.support.policies import policy_of
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, echo, mesh, until

AT_ONCE = 16
ELSEWHERE = {"source-datacenters": "dc9"}
RULE = {"SourceName": "web", "DestinationName": "db", "Action": "allow", "Meta": ELSEWHERE}


async def attempt(m: Mesh, count: int) -> None:
    context = contexts_of(m.root.leaf(service="web"), m.root).client
    for _ in range(count):
        try:
            sock, _ = await m.call(context)
        except HandshakeFailed:  # refused before our side was done with it
            continue
        sock.close()


@pytest.mark.parametrize(
    ("count", "denied_by"),
    [
        (1000, VerdictReason.DEFAULT_DENY),
        (200, VerdictReason.NARROWED),
        (200, InboundReason.DENY_LISTED),
        pytest.param(10_000, VerdictReason.DEFAULT_DENY, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
    ids=str,
)
async def test_the_app_is_never_dialled(count: int, denied_by: VerdictReason | InboundReason) -> None:
    async with mesh(echo) as m:
        if denied_by is InboundReason.DENY_LISTED:
            m.deny_list.publish(parse_deny_list(f"spiffe://{m.root.trust_domain}/ns/default/dc/dc1/svc/*"))
        else:
            rules = [RULE] if denied_by is VerdictReason.NARROWED else []
            m.policy.publish(policy_of(rules, "db", default_allow=False))
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(attempt, m, count // AT_ONCE)
        expected = count // AT_ONCE * AT_ONCE
        await until(lambda: sum(m.db.ledger.counters().values()) == expected)
        assert m.db.ledger.counters() == {(Direction.INBOUND, denied_by.value): expected}
        assert m.app.accepts == 0
