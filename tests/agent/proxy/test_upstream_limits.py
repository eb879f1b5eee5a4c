"""Every limit of an upstream, as a number and as one would write it."""

from __future__ import annotations

from dataclasses import replace

from agent.config.upstream_config import KEYS
from agent.proxy import upstream_limits
from upstreams.ejection import EjectionPolicy
from upstreams.spec import (
    MeshGatewayMode,
    ServiceDestination,
    TunnelMode,
    Upstream,
    WanMode,
    parse_upstream_flag,
)

DB = parse_upstream_flag("db@dc2:9191")
# Parts of the destination, and what the app speaks.
NO_LIMITS = {"filter", "near", "protocol"}


def written(upstream: Upstream, wan: WanMode = WanMode.AUTO) -> dict[str, str]:
    return {key: text for key, text, _ in upstream_limits.written(upstream, wan, TunnelMode.NEVER)}


def unusual(upstream: Upstream, wan: WanMode = WanMode.AUTO) -> set[str]:
    return {key for key, _, usual in upstream_limits.written(upstream, wan, TunnelMode.NEVER) if not usual}


def test_every_key_there_is_is_shown() -> None:
    assert {key.partition(".")[0] for key in written(DB)} == KEYS - NO_LIMITS


def test_the_defaults_by_name() -> None:
    assert written(DB) == {
        "connect_timeout_ms": "5000",
        "deadline_ms": "15000",
        "wan": "auto",
        "mesh_gateway": "none",
        "limits.max_connections": "none",
        "limits.max_pending_requests": "none",
        "passive_health_check.interval": "10s",
        "passive_health_check.max_failures": "1",
        "passive_health_check.base_ejection_time": "10s",
        "failover": "none",
        "failover_hold": "30s",
        "poll_interval": "none",
        "warm": "0",
        "warm_idle": "45s",
        "tunnel": "never",
    }
    assert unusual(DB) == set()


def test_what_was_said_is_no_default() -> None:
    told = replace(
        DB,
        connect_timeout=0.25,
        max_pending=3,
        mesh_gateway=MeshGatewayMode.LOCAL,
        ejection=EjectionPolicy(max_failures=2),
        failover=(ServiceDestination("db", "dc3"), ServiceDestination("db")),
    )
    assert unusual(told) == {
        "connect_timeout_ms",
        "limits.max_pending_requests",
        "mesh_gateway",
        "passive_health_check.max_failures",
        "failover",
    }
    assert written(told)["connect_timeout_ms"] == "250"
    assert written(told)["failover"] == "db@dc3, db"


def test_the_agents_own_wan_mode_stands_where_the_upstream_has_none() -> None:
    assert written(DB, WanMode.REQUIRE)["wan"] == "require"
    assert unusual(replace(DB, wan=WanMode.NEVER), WanMode.REQUIRE) == {"wan"}


def test_how_often_a_query_is_asked() -> None:
    query = parse_upstream_flag("prepared_query:near:9191")
    usual = "30s, or the query's TTL (10s to 60s)"
    assert written(query)["poll_interval"] == usual
    assert written(replace(DB, failover=(query.destination,)))["poll_interval"] == usual
    assert written(replace(query, poll_interval=5.0))["poll_interval"] == "5s"


def test_as_numbers() -> None:
    assert upstream_limits.row(replace(DB, max_pending=7)) == {
        "connect_timeout_seconds": 5.0,
        "deadline_seconds": 15.0,
        "max_connections": None,
        "max_pending_requests": 7,
        "failover_hold_seconds": 30.0,
        "poll_interval_seconds": None,
        "warm": 0,
        "warm_idle_seconds": 45.0,
        "passive_health_check": {
            "interval_seconds": 10.0,
            "max_failures": 1,
            "base_ejection_seconds": 10.0,
            "longest_ejection_seconds": 300.0,
            "slow_start_seconds": 10.0,
        },
        "fixed": {
            "candidates": 16,
            "candidates_before_stand_ins": 4,
            "news_seconds": 2.0,
            "address_head_start_seconds": 0.25,
            "warm": 64,
        },
    }
