"""What is no longer allowed ends at once, also when it is open already; what is allowed is left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio

from agent.connections.reauthorize import Rejudged, rejudge
from agent.connections.records import CloseReason
from tests.certs.authority import Issuer
from tests.support.policies import allow_all, deny_all, policy_of
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, Side, echo, mesh, now


async def opened(m: Mesh) -> trio.SocketStream:
    client = await m.connect()
    await client.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    return client


def judge(m: Mesh, side: Side, after: timedelta = timedelta()) -> Rejudged:
    return rejudge(side.ledger, m.policy.value, side.contexts.value, now() + after, too_old_since=None)


async def ended(client: trio.SocketStream) -> None:
    async with client:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


async def test_nothing_has_changed() -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        peer = m.db.ledger.live()[0].peer
        assert peer is not None
        assert judge(m, m.db) == Rejudged(closed=0, next_expiry=peer.not_after)
        async with client:
            await client.send_all(b"still")
            assert await client.receive_some() == b"still"


async def test_an_intention_turns_to_deny() -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        m.policy.publish(deny_all())
        assert judge(m, m.web).closed == 0  # whom we call is not for our intentions
        assert judge(m, m.db) == Rejudged(closed=1, next_expiry=None)
        await ended(client)
        await m.quiet()
        finished = m.db.ledger.recent()[-1]
        assert finished.reason is CloseReason.INTENTION_WITHDRAWN
        assert "default policy (deny)" in finished.detail
        assert "svc/web" in finished.detail


async def test_a_denial_of_somebody_else_closes_nobody() -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        rule = {"SourceName": "billing", "DestinationName": "db", "Action": "deny"}
        m.policy.publish(policy_of([rule], "db", default_allow=True))
        assert judge(m, m.db).closed == 0
        await client.aclose()


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_root_is_removed(direction: str) -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        side = m.db if direction == "inbound" else m.web
        new = Issuer.root()
        both = contexts_of(new.leaf(service="db", datacenter="dc2"), new, m.root, generation=2)
        side.contexts.publish(both)
        assert judge(m, side).closed == 0  # while both roots are served
        side.contexts.publish(contexts_of(new.leaf(), new, generation=3))
        assert judge(m, side).closed == 1
        await ended(client)
        assert (await side.finished()).reason is CloseReason.ROOT_REMOVED


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_peer_expires(direction: str) -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        side = m.db if direction == "inbound" else m.web
        assert judge(m, side, timedelta(hours=71)).closed == 0
        assert judge(m, side, timedelta(hours=73)).closed == 1
        assert judge(m, side, timedelta(hours=73)).closed == 0  # once is enough
        await ended(client)
        assert (await side.finished()).reason is CloseReason.PEER_EXPIRED


async def test_whoever_is_not_identified_yet_is_left_to_its_own_task() -> None:
    async with mesh(echo) as m:
        with m.raw():
            await m_until_live(m)
            m.policy.publish(deny_all())
            assert judge(m, m.db) == Rejudged(closed=0, next_expiry=None)
            m.policy.publish(allow_all())


async def m_until_live(m: Mesh) -> None:
    while not m.db.ledger.live():  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.001)
