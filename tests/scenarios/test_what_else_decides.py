"""Beside policy: datacenters, the deny list, and audit, which lets no false identity through."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import trio

from agent.base.freshness import Confirmation, Freshness
from agent.base.latest import Latest
from agent.connections.reauthorize import Rejudged, rejudge
from agent.connections.records import Audited, CloseReason, Direction
from agent.inbound.verdict import InboundReason
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import Policy, VerdictReason
from agent.policy.deny_list import NO_ENTRIES, DenyList, parse_deny_list
from agent.policy.narrowing import parse_setting
from agent.relay.splice import Ending
from certs.peer import PeerReason
from tests.certs.authority import OTHER_TRUST_DOMAIN, TRUST_DOMAIN
from tests.scenarios.http_front import allow, front, policy, request
from tests.support.policies import deny_all, policy_of
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, Side, echo, mesh, now

WEB = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}


def narrowed(names: str) -> Policy:
    return policy_of([{**WEB, "Meta": {"source-datacenters": names}}], "db", default_allow=False)


def listed(service: str, datacenter: str = "*") -> DenyList:
    return parse_deny_list(f"spiffe://{TRUST_DOMAIN}/ns/default/dc/{datacenter}/svc/{service}")


def judge(m: Mesh, side: Side) -> Rejudged:
    value = m.deny_list.value or NO_ENTRIES
    return rejudge(
        side.ledger, m.policy.value, side.contexts.value, now(), deny_list=value, too_old_since=None
    )


async def opened(m: Mesh) -> trio.SocketStream:
    client = await m.connect()
    assert await answer(client) == b"hello"
    return client


async def answer(client: trio.SocketStream) -> bytes:
    await client.send_all(b"hello")
    return bytes(await client.receive_some())


async def turned_away(m: Mesh) -> None:
    async with await m.connect() as client:
        with pytest.raises(trio.BrokenResourceError):
            await answer(client)


async def test_one_datacenter_of_a_source_is_let_in_and_another_is_not() -> None:
    async with mesh(echo) as m:
        m.policy.publish(narrowed("dc1"))
        async with await opened(m):
            assert m.db.ledger.live()[0].rule == "web => db (allow, precedence 9, only *@dc1)"
        m.policy.publish(narrowed("dc2"))
        await turned_away(m)
        # By reason and not by place: the first connection may finish after the refused one.
        (refused,) = [one for one in m.db.ledger.recent() if one.reason is VerdictReason.NARROWED]
        assert "dc1 is not among the source datacenters dc2" in refused.rule
        assert m.app.accepts == 1


@pytest.mark.parametrize("by", ["Meta", "settings"])
async def test_a_narrowing_closes_what_is_open(by: str) -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        allowed = policy_of([WEB], "db", default_allow=False)
        ours = replace(allowed, narrowings=(parse_setting("web@dc2"),))
        m.policy.publish(narrowed("dc2") if by == "Meta" else ours)
        assert judge(m, m.db).closed == 1
        async with client:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        assert (await m.db.finished()).reason is CloseReason.NARROWED


async def test_a_listed_caller_is_refused_whatever_intentions_allow() -> None:
    async with mesh(echo) as m:
        m.deny_list.publish(listed("web"))
        await turned_away(m)
        refused = await m.db.finished()
        assert (refused.reason, m.app.accepts) == (InboundReason.DENY_LISTED, 0)
        assert "deny list line 1" in refused.detail


async def test_a_listed_certificate_is_refused_and_another_of_that_service_is_not() -> None:
    async with mesh(echo) as m:
        m.deny_list.publish(parse_deny_list(f"serial {TRUST_DOMAIN} dc1 0d"))
        await turned_away(m)
        m.web.contexts.publish(contexts_of(m.root.leaf(service="web", serial=0x0E), m.root, generation=2))
        async with await opened(m):
            assert m.app.accepts == 1


async def test_a_listed_destination_is_not_called() -> None:
    async with mesh(echo) as m:
        m.deny_list.publish(listed("db", "dc2"))
        await turned_away(m)
        assert (await m.web.finished()).reason is OutboundReason.ALL_FAILED
        assert [attempt.reason for attempt in m.web.events.attempts] == [OutboundReason.DENY_LISTED]
        # With TLS 1.3 the far side may have called its app before we refuse; it hears nothing of ours.
        assert m.web.ledger.bytes(Direction.OUTBOUND) == (0, 0)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_listing_closes_what_is_open(direction: str) -> None:
    async with mesh(echo) as m:
        client = await opened(m)
        m.deny_list.publish(listed("web" if direction == "inbound" else "db"))
        side, other = (m.db, m.web) if direction == "inbound" else (m.web, m.db)
        assert (judge(m, side).closed, judge(m, other).closed) == (1, 0)
        assert (await side.finished()).reason is CloseReason.DENY_LISTED
        await client.aclose()


async def test_audit_lets_through_what_is_denied_and_counts_it() -> None:
    async with mesh(echo) as m:
        m.policy.publish(replace(deny_all(), audit=True))
        async with await opened(m):
            assert judge(m, m.db).closed == 0  # and it is not counted again
            assert judge(m, m.db).closed == 0
        expected = Audited(reason=VerdictReason.DEFAULT_DENY, rule="default policy (deny)")
        assert m.db.events.audits == [expected]
        assert m.db.ledger.audits() == {"default_deny": 1}
        finished = await m.db.finished()
        assert finished.reason is Ending.CLEAN or finished.opened


async def test_audit_counts_an_open_connection_whose_verdict_turns() -> None:
    async with mesh(echo) as m, await opened(m):
        assert m.db.ledger.audits() == {}
        m.policy.publish(replace(deny_all(), audit=True))
        assert judge(m, m.db).closed == 0
        assert m.db.ledger.audits() == {"default_deny": 1}


@pytest.mark.parametrize("fault", ["deny list", "trust domain", "expired"])
async def test_audit_lets_no_identity_through_that_is_none(fault: str) -> None:
    async with mesh(echo) as m:
        m.policy.publish(replace(deny_all(), audit=True))
        if fault == "deny list":
            m.deny_list.publish(listed("web"))
        minted = m.root.leaf(service="web")
        if fault == "trust domain":
            uri = f"spiffe://{OTHER_TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
            minted = m.root.leaf(service="web", uris=[uri])
        if fault == "expired":
            minted = m.root.leaf(service="web", not_after=m.root.now)
        sock, _ = await m.call(contexts_of(minted, m.root).client)
        with sock:
            refused = await m.db.finished()
        reasons = {InboundReason.DENY_LISTED, PeerReason.WRONG_TRUST_DOMAIN, PeerReason.EXPIRED}
        assert refused.reason in reasons
        assert (m.app.accepts, m.db.ledger.audits()) == (0, {})


async def test_the_books_name_both_ends_and_the_rule() -> None:
    async with mesh(echo) as m:
        m.policy.publish(policy_of([WEB], "db", default_allow=False))
        async with await opened(m):
            pass
        await m.quiet()
        inbound, outbound = m.db.ledger.recent()[-1], m.web.ledger.recent()[-1]
        assert inbound.rule == "web => db (allow, precedence 9)"
        for one, ours, theirs in ((inbound, "db", "web"), (outbound, "web", "db")):
            assert one.ours is not None
            assert one.theirs is not None
            assert (one.ours.id.service, one.theirs.id.service) == (ours, theirs)
            assert one.ours.serial == one.theirs.serial == "0d"


async def test_audit_lets_requests_through_too_and_counts_each() -> None:
    async with front(allow(PathPrefix="/api")) as f:
        f.mesh.policy.publish(replace(policy(allow(PathPrefix="/api")), audit=True))
        for path in ("/api", "/admin", "/admin"):
            reply = await f.ask(request(f"GET {path}"))
            assert reply is not None
            assert reply.status == 200
        events, ledger = f.mesh.db.events, f.mesh.db.ledger
        assert [audited.request for audited in events.audits] == ["GET /admin", "GET /admin"]
        assert ledger.audits() == {"default_deny": 2}
        assert ledger.requests() == {"permission_allow": 1}


async def test_once_the_time_is_up_callers_and_requests_are_refused_though_nothing_is_published() -> None:
    """No task has to run for it: the wall clock has gone on while this machine slept."""
    passed = timedelta()
    async with front(allow(PathPrefix="/")) as f:
        confirmed = Latest(Confirmation(now(), trio.current_time()))
        f.mesh.freshness = Freshness(confirmed, 3600.0, lambda: now() + passed)
        async with f.caller() as caller:
            await caller.send(request("GET /"))
            assert (reply := await caller.reply())
            assert reply.status == 200
            passed = timedelta(hours=2)
            await caller.send(request("GET /"))
            assert (reply := await caller.reply())
            assert reply.status == 403
        assert await f.ask(request("GET /")) is None
        assert f.mesh.policy.version == 2, "as the front began with"
        assert f.mesh.db.ledger.requests()["intentions_too_old"] == 1
        assert f.mesh.db.ledger.counters()[Direction.INBOUND, "intentions_too_old"] == 1
