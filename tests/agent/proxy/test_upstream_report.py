"""What status and metrics say of an upstream: everything that decides where its next connection goes."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from agent.base.incremental import Incremental
from agent.base.prometheus import text
from agent.net.admission import Admission, Slot
from agent.net.listeners import Listeners, Opening
from agent.outbound.listeners import UpstreamListeners
from agent.outbound.upstream_state import UpstreamState
from agent.proxy import upstream_limits
from agent.proxy import upstream_report as upstream_status
from tests.support import warm_upstream as warm_story
from tests.support.agent_parts import AgentBench, agent_bench
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import EndpointSet, ExpectedIdentity, HostPort, Unusable, UnusableReason
from upstreams.reach import DialAddress
from upstreams.route import Candidate
from upstreams.spec import LocalBind, MeshGatewayMode, ServiceDestination, TunnelMode, Upstream
from upstreams.travel import IN_TUNNEL, Travel, TravelReason

BIND = LocalBind("127.0.0.1", 9191)
DB = Upstream(
    destination=ServiceDestination("db"),
    bind=BIND,
    failover=(ServiceDestination("db", "dc2"),),
    max_pending=7,
)


async def nobody(_sock: socket.socket, _place: Slot, _targets: UpstreamState) -> None:
    """Serve nobody."""


class Story:
    """An agent with one upstream, its lookups in the test's hands."""

    def __init__(self, agent: AgentBench, nursery: trio.Nursery, upstream: Upstream) -> None:
        self.bench = agent
        self.lookups = Lookups()
        context = surroundings(self.lookups, Told())
        self.loads = context.loads
        self.targets = UpstreamState(upstream, context)
        self.targets.sources()
        self.upstreams = UpstreamListeners(
            listeners=Listeners(agent.agent.log).serve_in(nursery, nursery),
            sources=self.lookups,
            ledger=agent.data.ledger,
            serve=nobody,
            context=context,
            limit=None,
            unsettled_limit=None,
            current={BIND: self.targets},
        )

    def row(self) -> dict[str, Any]:
        """As it arrives in JSON."""
        rows = Incremental(upstream_status.rows(self.upstreams, self.bench.control.clock())).run_now()
        (row,) = msgspec.json.decode(msgspec.json.encode(rows))
        assert isinstance(row, dict)
        return row

    def page(self) -> str:
        return text(Incremental(upstream_status.families(self.upstreams)).run_now())


async def story(nursery: trio.Nursery, upstream: Upstream = DB) -> Story:
    return Story(agent_bench(nursery), nursery, upstream)


async def test_without_upstreams_there_is_nothing_to_say(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    upstreams = bench.data.reconciler.upstreams
    assert Incremental(upstream_status.rows(upstreams, bench.control.clock())).run_now() == []
    assert text(Incremental(upstream_status.families(upstreams)).run_now()).strip() == ""


async def test_limits_and_what_they_turned_away_are_shown(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    assert told.row()["limits"] == upstream_limits.row(DB)
    assert told.row()["overflow"] == {}
    assert "sidecar_upstream_overflow_total{" not in told.page()
    told.targets.overflow["upstream_pending_overflow"] += 3
    assert told.row()["overflow"] == {"upstream_pending_overflow": 3}
    labels = 'upstream="db",bind="127.0.0.1:9191"'
    page = told.page()
    assert f'sidecar_upstream_limit{{limit="max_pending_requests",{labels}}} 7' in page
    assert 'limit="max_connections"' not in page
    assert f'overflow_total{{reason="upstream_pending_overflow",{labels}}} 3' in page


async def test_each_target_with_its_age_and_its_endpoints(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    near = endpoint("near")
    nameless = Unusable(instance="x on n1", reason=UnusableReason.NO_DESTINATION)
    source = told.lookups.made["db"]
    source.endpoints.publish(EndpointSet(endpoints=(near,), unusable=(nameless,), source="health of db"))
    source.status.succeeded(told.bench.control.clock())
    told.loads[near.key] = 3
    row = told.row()
    assert (row["active"], row["wan"], row["mesh_gateway"]) == ("db", "auto", "none")
    assert [target["target"] for target in row["targets"]] == ["db", "db@dc2"]
    first, second = row["targets"]
    assert first["answered_seconds_ago"] == pytest.approx(0, abs=1)
    assert first["source"] == "health of db"
    assert first["unusable"] == ["x on n1: no_destination"]
    assert first["endpoints"] == [
        {
            "instance": "near on n1 in dc1",
            "status": "passing",
            "weight": 1,
            "expects": "/ns/default/dc/dc1/svc/db",
            "live": 3,
            "ejected_until": None,
            "address": "10.0.0.1:1",
            "why": "local_service_address",
            "travel": "tunnel_never",
            "travel_says": "a connection each: our setting `tunnel` is never (tunnel_never)",
        }
    ]
    assert (second["answered_seconds_ago"], second["source"], second["endpoints"]) == (None, None, [])


class Far:
    """What is known of the far side."""

    def standing(self, _expected: ExpectedIdentity, dialling: DialAddress, /) -> Travel:
        return Travel(TravelReason.REFUSED, 9.6) if dialling.port == 1 else IN_TUNNEL


async def test_each_instance_says_how_a_connection_to_it_travels(nursery: trio.Nursery) -> None:
    told = await story(nursery, replace(DB, tunnel=TunnelMode.AUTO, mesh_gateway=MeshGatewayMode.REMOTE))
    near = [replace(endpoint(name), tunnels=name != "silent") for name in ("refuses", "silent")]
    far = replace(endpoint("far", datacenter="dc2"), tunnels=True)
    told.lookups.made["db"].endpoints.publish(EndpointSet(endpoints=(*near, far)))
    work = upstream_status.rows(told.upstreams, told.bench.control.clock(), Far())
    rows: Any = Incremental(work).run_now()  # as in JSON
    ends = rows[0]["targets"][0]["endpoints"]
    assert [end["travel"] for end in ends] == ["no_tunnels", "no_tunnel_offer", "behind_mesh_gateway"]
    assert ends[0]["travel_says"].endswith("(no_tunnels); asked again in 10 s")


async def test_addresses_and_the_lack_of_one(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    six = replace(
        endpoint("six", datacenter="dc2"), tagged={"wan": HostPort("2001:db8::1", 9)}, service_address="::1"
    )
    told.lookups.answer("db", six, replace(endpoint("none"), port=0))
    shown = [(e["address"], e["why"]) for e in told.row()["targets"][0]["endpoints"]]
    assert shown == [("[2001:db8::1]:9", "wan_tag"), (None, "no_port")]


async def test_what_is_ejected_and_which_target_is_active(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    near, far = endpoint("near"), endpoint("far", datacenter="dc2")
    told.lookups.answer("db", near)
    told.lookups.answer("db@dc2", far)
    told.targets.failed(Candidate(target=0, endpoint=near, hop=near))
    row = told.row()
    assert row["active"] == "db@dc2"
    assert row["targets"][0]["endpoints"][0]["ejected_until"].endswith("Z")
    page = told.page()
    labels = 'upstream="db",bind="127.0.0.1:9191"'
    for line in (
        f'sidecar_upstream_active{{target="db",{labels}}} 0',
        f'sidecar_upstream_active{{target="db@dc2",{labels}}} 1',
        f"sidecar_upstream_ejected{{{labels}}} 1",
        f"sidecar_upstream_target_changes_total{{{labels}}} 1",
        f"sidecar_upstream_connections{{{labels}}} 0",
        f'sidecar_upstream_endpoints{{target="db",datacenter="dc1",status="passing",{labels}}} 1',
    ):
        assert line in page.splitlines()


async def test_long_lists_are_cut_and_say_so(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    told.lookups.answer("db", *(endpoint(str(number)) for number in range(1003)))
    target = told.row()["targets"][0]
    assert (len(target["endpoints"]), target["endpoints_not_shown"]) == (1000, 3)


async def test_gateways_on_the_way(nursery: trio.Nursery) -> None:
    told = await story(nursery, replace(DB, mesh_gateway=MeshGatewayMode.LOCAL, failover=()))
    told.lookups.answer("db", endpoint("far", datacenter="dc2"))
    assert told.row()["gateways"] == []
    list(told.targets.candidates())
    told.lookups.answer("mesh gateways", endpoint("gate"))
    row = told.row()
    assert row["mesh_gateway"] == "local"
    assert [e["instance"] for e in row["gateways"][0]["endpoints"]] == ["gate on n1 in dc1"]


async def test_the_listener(nursery: trio.Nursery) -> None:
    admission = Admission(5, 2)
    admission.enter()
    opening = Opening(purpose="x", address=None, handler=trio.sleep, admission=admission)  # type: ignore[arg-type]
    assert upstream_status.opening_row(None) is None
    assert upstream_status.opening_row(opening) == {
        "addresses": [],
        "listening": False,
        "problem": "",
        "live": 1,
        "limit": 5,
        "most": 1,
        "admitted": 1,
        "handshakes": 1,
        "handshakes_limit": 2,
        "handshakes_most": 1,
        "overflow": 0,
        "overflow_by_reason": {"max_connections": 0, "max_handshakes": 0},
        "pressure": "",
        "waiting": 0,
        "left": 0,
        "displaced": {"silent": 0, "stalled": 0},
    }


async def test_warm_connections_ready_used_and_given_up(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await story(nursery, replace(DB, warm=2))
    assert told.row()["warm"] == {
        "wanted": 2,
        "ready": [],
        "made": 0,
        "used": 0,
        "missed": 0,
        "discarded": {},
        "failed": {},
    }
    async with warm_story.story(monkeypatch) as kept:
        await kept.filled()
        told.targets.warm, told.targets.warm_book = kept.pool, kept.targets.warm_book
        kept.far_of(kept.pool.ready[0]).end("closed")
        await trio.sleep(0.01)
        (ready,) = told.row()["warm"]["ready"]
        assert ready["address"] == "10.0.0.1:1 (local_service_address)"
        assert (ready["peer_serial"], ready["generation"], ready["heard_bytes"]) == ("0d", 1, 0)
        assert ready["peer"].endswith("/dc/dc1/svc/db")
        kept.fault = warm_story.refused
        await trio.sleep(3)
        page = told.page().splitlines()
        labels = 'upstream="db",bind="127.0.0.1:9191"'
        for line in (
            f"sidecar_upstream_warm_wanted{{{labels}}} 2",
            f"sidecar_upstream_warm_ready{{{labels}}} 0",
            f"sidecar_upstream_warm_used_total{{{labels}}} 0",
            f'sidecar_upstream_warm_discarded_total{{reason="closed_by_peer",{labels}}} 1',
            f'sidecar_upstream_warm_discarded_total{{reason="endpoint_ejected",{labels}}} 1',
        ):
            assert line in page
        failed = kept.targets.warm_book.failed["connect_refused"]
        assert f'sidecar_upstream_warm_failed_total{{reason="connect_refused",{labels}}} {failed}' in page


async def test_where_none_are_wanted_metrics_do_not_speak_of_them(nursery: trio.Nursery) -> None:
    assert "warm" not in (await story(nursery)).page()


async def test_hundreds_of_upstreams_are_told_in_steps(nursery: trio.Nursery) -> None:
    told = await story(nursery)
    count = 20 * upstream_status.PIECE
    told.upstreams.current = dict.fromkeys(
        (LocalBind("127.0.0.1", 20000 + number) for number in range(count)), told.targets
    )
    rows = upstream_status.rows(told.upstreams, told.bench.control.clock())
    assert sum(1 for _ in rows) == 20
    assert sum(1 for _ in upstream_status.families(told.upstreams)) >= 20
