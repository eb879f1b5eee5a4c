"""`/status`: everything an operator asks, as it arrives, and no secret."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.connections.records import Direction
from agent.observe.agent import Agent
from agent.observe.status import document
from agent.outbound.reasons import OutboundReason
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.certs.authority import TRUST_DOMAIN
from tests.support.agent_in_process import public_life
from tests.support.agent_parts import MATCH, PROXY, agent_bench, registration, settings


async def as_read(agent: Agent) -> dict[str, Any]:
    """The document as it arrives."""
    read: dict[str, Any] = json.loads(msgspec.json.encode(await document(agent)))
    return read


async def test_before_anything_is_known(nursery: trio.Nursery) -> None:
    read = await as_read(agent_bench(nursery).agent)
    assert (read["phase"], read["ready"]) == ("starting", False)
    assert read["missing"] == ["registration: no answer yet"]
    for name in ("placement", "credentials", "intentions", "public"):
        assert read[name] is None
    for name in ("watches", "upstreams", "connections", "tunnels", "recent", "admin", "complaints"):
        assert read[name] == []


async def test_while_it_serves(nursery: trio.Nursery) -> None:
    life = public_life(nursery, token="s3cret-token")
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        read = await as_read(life.bench.agent)
        life.cycle.drain("the test")
    assert (read["phase"], read["ready"], read["missing"]) == ("serving", True, [])
    assert read["placement"]["proxy_id"] == PROXY
    assert read["placement"]["local_app"] == "127.0.0.1:8080"
    assert read["settings"]["listen"] == {"value": "127.0.0.1:0", "origin": "flag -listen"}
    assert read["settings"]["service_addr"] == {"value": "127.0.0.1:8080", "origin": f"definition {PROXY}"}
    assert read["settings"]["drain_seconds"]["origin"] == "flag -drain-seconds"
    assert read["settings"]["log_level"]["origin"] == "default"
    credentials = read["credentials"]
    assert credentials["id"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    assert (credentials["serial"], credentials["generation"], credentials["rejected"]) == ("0d", 1, None)
    assert [root["active"] for root in credentials["roots"]] == [True]
    assert 0 < credentials["expires_in_seconds"] <= 72 * 3600
    assert read["intentions"] == {
        "default": "allow",
        "default_origin": "authorize allows: Default behavior configured by ACLs",
        "default_unknown": "",
        "good_until": None,
        "too_old": False,
        "rules": [],
        "unsupported": [],
    }
    names = ["registration", "roots", "leaf", "intentions", "default policy"]
    assert [watch["name"] for watch in read["watches"]] == names
    assert all(watch["failing"] is None and watch["answered_seconds_ago"] >= 0 for watch in read["watches"])
    assert read["public"]["listening"]
    assert len(read["admin"]) == 1
    whole = json.dumps(read)
    assert "PRIVATE KEY" not in whole
    assert "s3cret-token" not in whole


async def test_what_fails_is_told_with_its_reason(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery, settings(token="x"))
    life = public_life(nursery)
    life.bench.well()
    life.bench.consul.replace("/v1/agent/connect/ca/roots")
    life.bench.consul.answer("/v1/agent/connect/ca/roots", text="No cluster leader", status=500)
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.until(lambda: "watch.failed" in life.bench.events())
        read = await as_read(life.bench.agent)
        life.cycle.drain("the test")
    (roots,) = [watch for watch in read["watches"] if watch["name"] == "roots"]
    assert roots["failing"]["reason"] == "unavailable"
    assert "No cluster leader" in roots["failing"]["detail"]
    assert roots["failures"]["unavailable"] >= 1
    bench.control.token.complaint = "token file /x: gone"
    assert (await as_read(bench.agent))["complaints"] == ["token file /x: gone"]


async def test_rejected_credentials(nursery: trio.Nursery) -> None:
    life = public_life(nursery)
    root = life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        life.bench.consul.answer("/v1/agent/connect/ca/leaf/web", root.leaf(service="db").answer(), index=9)
        await life.until(lambda: "credentials.rejected" in life.bench.events())
        read = await as_read(life.bench.agent)
        life.cycle.drain("the test")
    assert read["credentials"]["serial"] == "0d"
    assert read["credentials"]["rejected"]["reason"] == "wrong_service"
    assert read["counters"]["credentials_rejected"] == {"wrong_service": 1}
    assert read["ready"]


async def test_connections_live_and_finished(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = agent_bench(nursery)
    domain = TrustDomain.parse(TRUST_DOMAIN)
    identity = ServiceId(trust_domain=domain, datacenter="dc2", service="db")
    with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
        connection.end(OutboundReason.NO_ENDPOINTS, "none")
    with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
        connection.peer = Peer(id=identity, serial="0a", not_after=bench.control.clock(), root="f")
        connection.dialled = "10.0.0.1:21000 (wan_tag)"
        connection.relaying()
        read = await as_read(bench.agent)
        monkeypatch.setattr("agent.proxy.report.MOST_ROWS", 0)
        assert (await as_read(bench.agent))["connections_not_shown"] == 1
    (row,) = read["connections"]
    assert {name: row[name] for name in ("direction", "peer", "address", "why", "opened", "upstream")} == {
        "direction": "outbound",
        "peer": str(identity),
        "address": "10.0.0.1:21000",
        "why": "wan_tag",
        "opened": True,
        "upstream": "db@dc2",
    }
    (finished,) = read["recent"]
    assert (finished["reason"], finished["detail"]) == ("no_endpoints", "none")
    assert read["counters"]["endings"] == {"inbound": {}, "outbound": {"no_endpoints": 1}}
    assert read["counters"]["bytes"]["outbound"] == {"to_plain": 0, "to_tls": 0}


async def test_audit_mode_is_not_to_be_overlooked(nursery: trio.Nursery) -> None:
    told = await document(agent_bench(nursery, settings(audit="true", narrow=["web@dc1"])).agent)
    assert told["complaints"] == ["AUDIT MODE: intentions are not enforced"]
    assert told["policy"] == {
        "audit": True,
        "strict": False,
        "narrow": ["web@dc1"],
        "deny_file": None,
        "deny_entries": 0,
    }


async def test_a_token_that_is_refused_while_we_serve_is_a_complaint(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery, settings(token="s3cret"))
    bench.well()
    bench.control.take(registration())
    await trio.sleep(1)
    assert (await as_read(bench.agent))["complaints"] == []
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="ACL not found", status=403)
    bench.consul.drop()
    await trio.sleep(200)
    (complaint,) = (await as_read(bench.agent))["complaints"]
    assert complaint.startswith("Consul refuses the token (intentions): Consul does not know this token")
    assert "s3cret" not in complaint
