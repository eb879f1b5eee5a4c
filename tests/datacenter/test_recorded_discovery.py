"""Catalog, health, coordinates and WAN translation, held to the recordings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datacenter.registrations import (
    REFUSED,
    external_node,
    failing,
    matrix,
    recovered,
    registered,
)
from tests.datacenter.replay import Case, replay
from tests.datacenter.world import MANAGEMENT, World, world_a, world_b, world_s

CONNECT = "GET /v1/health/connect"
SERVICE = "/v1/agent/service/register"


async def with_refused_probe(world: World) -> None:
    await registered(world)
    world.dc1.say("service:db1-sidecar-proxy:1", "critical", REFUSED.format(21510))


async def with_db2(world: World) -> None:
    """A-dc2: a sidecar with a WAN address of its own, and its probe refused."""
    sidecar = {
        "Address": "127.0.0.12",
        "Port": 21520,
        "TaggedAddresses": {"wan": {"Address": "127.0.0.112", "Port": 31520}},
    }
    registration = {"ID": "db2", "Name": "db", "Port": 18082, "Connect": {"SidecarService": sidecar}}
    await world.dc2.ok("PUT", SERVICE, registration, token=MANAGEMENT)
    world.dc2.say("service:db2-sidecar-proxy:1", "critical", REFUSED.format(21520))


async def with_wan_db(world: World) -> None:
    """S-dc2: the service and its sidecar each with LAN and WAN addresses."""

    def addresses(port: int, wan_port: int) -> dict[str, Any]:
        lan = {"Address": "127.0.0.2", "Port": port}
        return {"lan": lan, "wan": {"Address": "127.0.0.22", "Port": wan_port}}

    sidecar = {"Port": 21002, "TaggedAddresses": addresses(21002, 31002)}
    registration = {
        "Name": "db",
        "Address": "127.0.0.2",
        "Port": 8082,
        "TaggedAddresses": addresses(8082, 18082),
        "Connect": {"SidecarService": sidecar},
    }
    await world.dc2.ok("PUT", SERVICE, registration)
    world.dc2.say("service:db-sidecar-proxy:1", "critical", REFUSED.format(21002))


async def cached_before(world: World) -> None:
    await failing(world)
    await world.dc1.ok("GET", "/v1/health/connect/db?cached")


async def without_dc1(world: World) -> None:
    world.down.add("dc1")


def a(recording: str, request: str, token: str = MANAGEMENT, **more: Any) -> Case:
    given = {"world": world_a, **more}
    return Case(recording=recording, request=request, token=token, **given)


def b(recording: str, request: str, **more: Any) -> Case:
    given = {"world": world_b, "before": failing, **more}
    return Case(recording=recording, request=request, **given)


def s(recording: str, request: str, **more: Any) -> Case:
    given = {"world": world_s, "before": with_wan_db, **more}
    return Case(recording=recording, request=request, **given)


CASES = [
    # catalog
    b("catalog-connect", "GET /v1/catalog/connect/db"),
    b("catalog-datacenters", "GET /v1/catalog/datacenters"),
    b("catalog-services", "GET /v1/catalog/services"),
    a("catalog-service-denied", "GET /v1/catalog/service/db", "", before=registered),
    # coordinates
    b(
        "coordinate-datacenters",
        "GET /v1/coordinate/datacenters",
        # Another datacenter's node is not known by its name here.
        by_shape=frozenset({"Node"}),
        unordered=frozenset({""}),
    ),
    b("coordinate-nodes", "GET /v1/coordinate/nodes"),
    # parameters of health
    b("health-connect-bad-dc", f"{CONNECT}/db?dc=dc9"),
    b("health-connect-badindex", f"{CONNECT}/db?index=abc"),
    b("health-connect-stale-and-consistent", f"{CONNECT}/db?stale&consistent"),
    b(
        "health-connect-filter",
        f"{CONNECT}/db?filter=Service.ID==%22dbA-sidecar-proxy%22",
        at="dc2",
        before=matrix,
    ),
    b("health-connect-filter-bad", f"{CONNECT}/db?filter=Nope==1", at="dc2", before=matrix),
    b("health-connect-near", f"{CONNECT}/db?near=_agent"),
    b("health-connect-empty", f"{CONNECT}/nope"),
    b("health-service", "GET /v1/health/service/db"),
    b("health-service-passing-values", "GET /v1/health/service/db?passing=false"),
    a("health-ingress-missing", f"{CONNECT}/db", "", before=registered),
    a("passing-invalid", f"{CONNECT}/db?passing=xx", before=with_refused_probe),
    a("partition-param-oss", f"{CONNECT}/db?partition=foo", before=with_refused_probe),
    a("ns-param-oss", f"{CONNECT}/db?ns=foo"),
    a("ns-param-oss-default", f"{CONNECT}/db?ns=default"),
    # blocking and cached health
    b("health-blocking-timeout", CONNECT + "/db?index={index}&wait=2s", seconds=2.0),
    b("health-blocking-index-future", f"{CONNECT}/db?index=99999999&wait=2s", seconds=2.0, before=recovered),
    b("health-blocking-nonexistent", CONNECT + "/nope?index={index}&wait=2s", seconds=2.0),
    b("health-blocking-change", CONNECT + "/db?index={index}&wait=30s", during=recovered, seconds=0.0),
    b("health-connect-cached", f"{CONNECT}/db?cached"),
    b("health-connect-cached2", f"{CONNECT}/db?cached", before=cached_before),
    b("health-connect-cached-dc2", f"{CONNECT}/db?cached&dc=dc2", before=matrix),
    # translation
    b("wanmatrix-local-health-connect", f"{CONNECT}/db?passing=1", at="dc2", before=matrix),
    b("wanmatrix-on-health-connect", f"{CONNECT}/db?dc=dc2&passing=1", before=matrix),
    a("wan-off-health-connect", f"{CONNECT}/db?dc=dc2", before=with_db2),
    b("wan-node-only-local", f"{CONNECT}/dbx", at="dc2", before=external_node),
    b("wan-node-only-translated", f"{CONNECT}/dbx?dc=dc2", before=external_node),
    s("wan-health-connect-dc2", f"{CONNECT}/db?dc=dc2&passing=1"),
    s("wan-health-connect-dc2-local", f"{CONNECT}/db?passing=1", at="dc2"),
    s("wan-health-service-dc2", "GET /v1/health/service/db?dc=dc2"),
    s("wan-catalog-connect-dc2", "GET /v1/catalog/connect/db?dc=dc2"),
    s("wan-catalog-service-dc2", "GET /v1/catalog/service/db?dc=dc2"),
    s("wan-catalog-node-dc2", "GET /v1/catalog/node/n2?dc=dc2"),
    s("wan-catalog-nodes-dc2", "GET /v1/catalog/nodes?dc=dc2"),
    s("wan-internal-ui-dc2", "GET /v1/internal/ui/nodes?dc=dc2"),
    # the other datacenter is down
    a("outage-primary-secondary-health-dc1", f"{CONNECT}/db?dc=dc1", at="dc2", before=without_dc1),
    a("outage-primary-secondary-health-dc1-later", f"{CONNECT}/db?dc=dc1", at="dc2", before=without_dc1),
    a(
        "outage-primary-secondary-datacenters",
        "GET /v1/catalog/datacenters",
        "",
        at="dc2",
        before=without_dc1,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_recorded(case: Case, autojump_clock: object) -> None:
    await replay(case)
