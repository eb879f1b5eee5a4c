"""The agent's own endpoints, held to the recordings: services, sidecars, checks, self."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datacenter.registrations import (
    SERVICE,
    SNAKE,
    db_with_ttl,
    delete_defaults,
    deregister_web,
    in_maintenance,
    registered,
    web_registration,
    with_check,
    with_defaults,
    with_one_upstream,
    with_snake,
    with_update,
)
from tests.datacenter.replay import Case, nothing, replay
from tests.datacenter.world import (
    IDENTITY,
    MANAGEMENT,
    READ_ONLY,
    WEB,
    WEB_ONLY,
    world_a,
    world_b,
    world_c,
)

REGISTER = f"PUT {SERVICE}/register"
WEB_SIDECAR = f"GET {SERVICE}/web1-sidecar-proxy"


def a(recording: str, request: str, token: str = "", **more: Any) -> Case:
    """A case in world A, whose services are registered."""
    given = {"world": world_a, "before": registered, **more}
    return Case(recording=recording, request=request, token=token, **given)


def b(recording: str, request: str, **more: Any) -> Case:
    """A case in world B, whose db is registered."""
    given = {"world": world_b, "before": db_with_ttl, **more}
    return Case(recording=recording, request=request, **given)


CHECK = "PUT /v1/agent/check"
TTL_CHECK = {"Name": "sidecar up", "ServiceID": "db-sidecar-proxy", "TTL": "30s"}

CASES = [
    # services
    a("agent-service-register-ok", REGISTER, WEB, body=web_registration()),
    a("agent-service-register-badjson", REGISTER, MANAGEMENT, body='{"Name":'),
    a(
        "agent-service-register-badproxy",
        REGISTER,
        MANAGEMENT,
        body={"Name": "x-proxy", "Kind": "connect-proxy", "Port": 1},
    ),
    a("agent-service-register-denied", REGISTER, READ_ONLY, body=web_registration()),
    a("agent-service-register-noname", REGISTER, MANAGEMENT, body={"Port": 1}),
    a("agent-service-register-wrongmethod", f"GET {SERVICE}/register", MANAGEMENT),
    b("agent-register-snakecase", REGISTER, body=SNAKE),
    b("agent-register-unknown-field", REGISTER, body={"Name": "u", "Bogus": 1}),
    a("agent-deregister-404", f"PUT {SERVICE}/deregister/nope", MANAGEMENT),
    a("agent-services", "GET /v1/agent/services", WEB),
    a("agent-services-anonymous", "GET /v1/agent/services"),
    a(
        "agent-services-filter",
        "GET /v1/agent/services?filter=Kind==%22connect-proxy%22",
        MANAGEMENT,
    ),
    # one service, by content hash
    a("agent-service-sidecar", WEB_SIDECAR, WEB),
    a("agent-service-identity-token", WEB_SIDECAR, IDENTITY),
    a("token-bearer", WEB_SIDECAR, headers={"authorization": f"Bearer {MANAGEMENT}"}),
    a("agent-service-sidecar-merged", WEB_SIDECAR, MANAGEMENT, before=with_defaults),
    a(
        "agent-service-db-sidecar-merged",
        f"GET {SERVICE}/db1-sidecar-proxy",
        MANAGEMENT,
        before=with_defaults,
    ),
    b("agent-service-sidecar-defaults", f"GET {SERVICE}/snake-sidecar-proxy", before=with_snake),
    a("agent-service-404", f"GET {SERVICE}/nope", WEB),
    a("agent-service-denied", WEB_SIDECAR),
    a("agent-service-strict-token", WEB_SIDECAR, WEB_ONLY),
    a("agent-service-badtoken", WEB_SIDECAR, "deadbeef-0000-0000-0000-000000000000"),
    a("agent-service-bad-wait", f"{WEB_SIDECAR}?hash=abc&wait=xx", WEB),
    a("agent-service-hash-404", f"GET {SERVICE}/web1-sidecar-proxy?hash=abc&wait=5s", WEB, before=nothing),
    a(
        "agent-service-hash-timeout",
        WEB_SIDECAR + "?hash={hash}&wait=2s",
        WEB,
        before=with_defaults,
        seconds=2.0,
    ),
    a(
        "agent-service-hash-change-central",
        WEB_SIDECAR + "?hash={hash}&wait=30s",
        WEB,
        before=with_defaults,
        during=delete_defaults,
        seconds=0.0,
    ),
    a(
        "agent-service-hash-change-local",
        WEB_SIDECAR + "?hash={hash}&wait=30s",
        WEB,
        during=with_one_upstream,
        seconds=0.0,
    ),
    a(
        "agent-service-hash-deregistered",
        WEB_SIDECAR + "?hash={hash}&wait=30s",
        WEB,
        during=deregister_web,
        seconds=0.0,
    ),
    b("unix-socket-services", "GET /v1/agent/services", world=world_c, before=nothing),
    # checks
    b("check-register", f"{CHECK}/register", body={**TTL_CHECK, "ID": "sc1"}),
    b("check-register-bad", f"{CHECK}/register", body={**TTL_CHECK, "ID": "sc2", "ServiceID": "nope"}),
    b("check-register-wrong-field", f"{CHECK}/register", body={**TTL_CHECK, "CheckID": "sc1"}),
    b("check-pass", f"{CHECK}/pass/sc1?note=ok", before=with_check),
    b("check-warn", f"{CHECK}/warn/sc1?note=meh", before=with_check),
    b("check-fail", f"{CHECK}/fail/sc1", before=with_check),
    b("check-pass-404", f"{CHECK}/pass/nope"),
    b("check-update", f"{CHECK}/update/sc1", before=with_check, body={"Status": "passing", "Output": "fine"}),
    b("check-update-bad", f"{CHECK}/update/sc1", before=with_check, body={"Status": "nope"}),
    b("check-deregister", f"{CHECK}/deregister/sc1", before=with_check),
    b("check-deregister-404", f"{CHECK}/deregister/sc1"),
    b("agent-checks", "GET /v1/agent/checks", before=with_update),
    b(
        "agent-checks-sidecar-default",
        "GET /v1/agent/checks?filter=ServiceID==%22snake-sidecar-proxy%22",
        before=with_snake,
    ),
    # health of one service, maintenance
    b("agent-health-service-id", "GET /v1/agent/health/service/id/db-sidecar-proxy"),
    b("agent-health-service-404", "GET /v1/agent/health/service/id/nope"),
    b("maintenance-on", f"PUT {SERVICE}/maintenance/db-sidecar-proxy?enable=true&reason=drain"),
    b("maintenance-off", f"PUT {SERVICE}/maintenance/db-sidecar-proxy?enable=false", before=in_maintenance),
    b("maintenance-bad", f"PUT {SERVICE}/maintenance/db-sidecar-proxy"),
    b("maintenance-404", f"PUT {SERVICE}/maintenance/nope?enable=true"),
    b("maintenance-health", "GET /v1/health/connect/db?passing=1", before=in_maintenance),
    # who we are
    a(
        "agent-self",
        "GET /v1/agent/self",
        MANAGEMENT,
        # DebugConfig is as large as the version likes, the counters are of another moment, no xDS here.
        by_shape=frozenset({"DebugConfig", "agent", "envoy"}),
        without=frozenset({"raft", "serf_lan", "serf_wan", "runtime"}),
    ),
    a("agent-self-denied", "GET /v1/agent/self", WEB_ONLY),
    b("status-leader", "GET /v1/status/leader", before=nothing),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_recorded(case: Case, autojump_clock: object) -> None:
    await replay(case)
