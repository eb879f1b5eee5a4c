"""Prepared queries, held to the recordings: definitions, templates, execution, failover."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datacenter.registrations import REFUSED, db_with_ttl, matrix, registered
from tests.datacenter.replay import Case, nothing, replay
from tests.datacenter.world import MANAGEMENT, WEB, World, world_a, world_b, world_s

GEO: dict[str, Any] = {
    "Name": "db-geo",
    "Service": {
        "Service": "db",
        "Failover": {"NearestN": 0, "Datacenters": ["dc2"]},
        "OnlyPassing": True,
        "Connect": True,
    },
    "DNS": {"TTL": "10s"},
}
WITHOUT_TTL = {"Name": "db-geo", "Service": GEO["Service"]}
TO_NOWHERE = {
    "Name": "db-bad",
    "Service": {"Service": "zzz", "Failover": {"Datacenters": ["dc9"]}, "Connect": True},
}
WITH_TARGETS = {
    "Name": "db-t",
    "Service": {"Service": "db", "Failover": {"Targets": [{"Datacenter": "dc2"}]}, "Connect": True},
}
TEMPLATE = {
    "Name": "geo-",
    "Template": {"Type": "name_prefix_match", "Regexp": "^geo-(.*?)$"},
    "Service": {"Service": "${match(1)}", "Failover": {"NearestN": 1}, "OnlyPassing": True, "Connect": True},
}
PLAIN = {"Name": "db-plain", "Service": {"Service": "db", "Failover": {"Datacenters": ["dc2"]}}}
UPDATED = {
    "Name": "db-geo",
    "Service": {
        "Service": "db",
        "Failover": {"NearestN": 2, "Datacenters": ["dc2"]},
        "OnlyPassing": True,
        "Connect": True,
        "Near": "_agent",
        "Tags": ["!x"],
        "NodeMeta": {},
        "ServiceMeta": {},
    },
    "DNS": {"TTL": "10s"},
}
UNKNOWN = "11111111-2222-3333-4444-555555555555"


async def define(world: World, *queries: dict[str, Any], token: str = "") -> None:
    """Create queries in dc1; the last one's ID is noted."""
    for query in queries:
        created = await world.dc1.ok("POST", "/v1/query", query, token=token)
        world.noted["query"] = created["ID"]


async def defined(world: World) -> None:
    await db_with_ttl(world)
    await define(world, TEMPLATE, TO_NOWHERE, PLAIN, GEO)


async def defined_and_failing(world: World) -> None:
    """dc1 critical, dc2 with its five ways."""
    await matrix(world)
    await define(world, GEO, PLAIN)


async def executed(world: World) -> None:
    await defined(world)
    await world.dc1.ok("GET", "/v1/query/db-geo/execute?connect=true&cached")


async def healthy_sidecar(world: World) -> None:
    """S-dc1: db with its sidecar's default checks passing, and db-geo without a TTL."""
    registration = {"Name": "db", "Port": 8081, "Connect": {"SidecarService": {"Port": 21001}}}
    await world.dc1.ok("PUT", "/v1/agent/service/register", registration)
    world.dc1.say("service:db-sidecar-proxy:1", "passing", "TCP connect 127.0.0.1:21001: Success")
    await define(world, WITHOUT_TTL)


async def critical_everywhere(world: World) -> None:
    """A: db's probe refused in dc1, nothing in dc2."""
    await registered(world)
    world.dc1.say("service:db1-sidecar-proxy:1", "critical", REFUSED.format(21510))
    await define(world, WITHOUT_TTL, token=MANAGEMENT)


def a(recording: str, request: str, token: str = "", **more: Any) -> Case:
    given = {"world": world_a, "before": critical_everywhere, **more}
    return Case(recording=recording, request=request, token=token, **given)


def b(recording: str, request: str, **more: Any) -> Case:
    given = {"world": world_b, "before": defined, "unordered": frozenset({"Nodes"}), **more}
    return Case(recording=recording, request=request, **given)


def s(recording: str, request: str, **more: Any) -> Case:
    given = {"world": world_s, "before": healthy_sidecar, **more}
    return Case(recording=recording, request=request, **given)


def execute(name: str, parameters: str = "?connect=true") -> str:
    return f"GET /v1/query/{name}/execute{parameters}"


CASES = [
    # definitions
    b("query-create", "POST /v1/query", body=GEO, before=nothing),
    b("query-create-baddc", "POST /v1/query", body=TO_NOWHERE, before=nothing),
    b("query-create-template", "POST /v1/query", body=TEMPLATE, before=nothing),
    b("query-create-dup", "POST /v1/query", body=GEO),
    b("query-create-noservice", "POST /v1/query", body={"Name": "db-x", "Service": {}}),
    b("query-create-targets", "POST /v1/query", body=WITH_TARGETS),
    b("query-get", "GET /v1/query/{query}"),
    b("query-get-by-name-fails", "GET /v1/query/db-geo"),
    b("query-get-unknown", f"GET /v1/query/{UNKNOWN}"),
    b("query-update", "PUT /v1/query/{query}", body=UPDATED),
    s("query-list", "GET /v1/query"),
    s("query-explain", "GET /v1/query/db-geo/explain"),
    b("query-explain-template", "GET /v1/query/geo-db/explain"),
    # execution here
    b("query-execute-local", execute("db-geo")),
    b("query-execute-by-id", "GET /v1/query/{query}/execute?connect=true"),
    b("query-execute-index", execute("db-geo", "?connect=true&index=5&wait=5s"), seconds=0.0),
    b("query-execute-template", execute("geo-db")),
    b("query-execute-cached", execute("db-geo", "?connect=true&cached")),
    b("query-execute-cached2", execute("db-geo", "?connect=true&cached"), before=executed),
    s("query-execute-noconnect", execute("db-geo", "")),
    s("query-execute-limit-near", execute("db-geo", "?connect=true&limit=1&near=_agent")),
    b("query-execute-bad-limit", execute("db-geo", "?connect=true&limit=abc")),
    s("query-execute-nonexistent", execute("nope")),
    b("query-execute-post", "POST /v1/query/db-geo/execute"),
    # execution elsewhere
    b("query-execute-failover", execute("db-geo"), before=defined_and_failing),
    b("query-execute-no-connect-param-failover", execute("db-geo", ""), before=defined_and_failing),
    b("query-execute-plain-connect-param", execute("db-plain"), before=defined_and_failing),
    b("query-execute-plain-no-connect", execute("db-plain", ""), before=defined_and_failing),
    b("query-execute-template-nomatch", execute("geo-zzz")),
    b("query-execute-baddc", execute("db-bad")),
    b("query-execute-dc2", execute("db-geo", "?connect=true&dc=dc2")),
    # rights
    a("query-acl-web-execute", execute("db-geo"), WEB),
    a("query-acl-anonymous-execute", execute("db-geo")),
    a("query-acl-denied-execute", execute("none")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_recorded(case: Case, autojump_clock: object) -> None:
    await replay(case)
