"""Where our datacenter's intentions deny us an upstream: no new connection is made, and no open one stays."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import CloseReason, Direction
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.policy.source_intentions import SourceIntentions, parse_outgoing
from tests.support.faults import NoFaults
from tests.support.other_callee import in_place_of_db
from tests.support.policies import NEVER_TOO_OLD
from tests.support.two_sidecars import Mesh, echo, mesh, now, until

RULE = {"SourceName": "web", "DestinationName": "db"}
DENY = parse_outgoing([{**RULE, "Action": "deny"}])
NARROWED = parse_outgoing([{**RULE, "Action": "allow", "Meta": {"destination-datacenters": "dc1"}}])
NOTHING = parse_outgoing(None)


async def opened(m: Mesh) -> trio.SocketStream:
    client = await m.connect()
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    return client


async def refused(m: Mesh) -> None:
    async with await m.connect() as client:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


@pytest.mark.parametrize(
    ("outgoing", "reason"), [(DENY, OutboundReason.INTENTION_DENY), (NARROWED, OutboundReason.NARROWED)]
)
async def test_a_new_connection_is_not_even_dialled(
    outgoing: SourceIntentions, reason: OutboundReason
) -> None:
    async with mesh(echo) as m:
        m.outgoing.publish(outgoing)
        for _ in range(20):
            await refused(m)
        await m.web.finished(20)
        assert m.web.ledger.counters() == {(Direction.OUTBOUND, reason.value): 20}
        assert m.web.ledger.failed_attempts() == {reason.value: 20}
        last = m.web.ledger.recent()[-1]
        assert last.rule.startswith("web => db")
        assert last.rule in last.detail
        assert m.db.ledger.counters() == {}
        assert m.targets.failures.ejected() == {}, "nothing speaks against the instance"
        m.outgoing.publish(NOTHING)
        await (await opened(m)).aclose()


async def test_an_open_one_is_closed_at_once_and_the_others_stay() -> None:
    async with mesh(echo) as m, trio.open_nursery() as nursery:
        told: list[int] = []
        judge = Reauthorizer(
            m.web.ledger,
            policy=m.policy,
            freshness=NEVER_TOO_OLD,
            contexts=m.web.contexts,
            clock=now,
            on_closed=told.append,
            faults=NoFaults(),
            outgoing=m.outgoing,
        )
        nursery.start_soon(judge.run)
        client = await opened(m)
        other = {**RULE, "DestinationName": "billing", "Action": "deny"}
        m.outgoing.publish(parse_outgoing([other]))
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"still")
        assert await client.receive_some() == b"still"
        m.outgoing.publish(DENY)
        async with client:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        finished = await m.web.finished()
        assert finished.reason is CloseReason.INTENTION_WITHDRAWN
        assert finished.rule == "web => db (deny, precedence 9)"
        assert told == [1]
        nursery.cancel_scope.cancel()


async def test_a_denial_that_comes_during_the_handshake_is_heeded() -> None:
    async with mesh(echo) as m, in_place_of_db(m) as answer, trio.open_nursery() as nursery:
        nursery.start_soon(refused, m)
        caller, _ = await answer(lambda: m.outgoing.publish(DENY))
        finished = await m.web.finished()
        assert (finished.reason, finished.opened) == (OutboundReason.INTENTION_DENY, False)
        caller.close()


async def test_audit_only_counts() -> None:
    async with mesh(echo) as m:
        m.outgoing.publish(
            SourceIntentions(by_destination=DENY.by_destination, others=DENY.others, audit=True)
        )
        await (await opened(m)).aclose()
        await until(lambda: m.web.ledger.count == 0)
        assert m.web.ledger.audits() == {VerdictReason.INTENTION_DENY.value: 1}
