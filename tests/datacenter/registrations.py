"""Registrations from which the recordings were made, as steps that bring their states about."""

from __future__ import annotations

import json
from typing import Any

from tests.datacenter.replay import recorded
from tests.datacenter.world import MANAGEMENT, WEB, World

SERVICE = "/v1/agent/service"
REFUSED = "dial tcp 127.0.0.1:{0}: connect: connection refused"
PROXY_DEFAULTS = {
    "Kind": "proxy-defaults",
    "Name": "global",
    "Config": {"protocol": "http", "local_connect_timeout_ms": 1234, "extra": "x"},
    "MeshGateway": {"Mode": "local"},
}


def web_registration() -> dict[str, Any]:
    """What `reg-web.json` must have been: its result is `agent-service-sidecar`."""
    shown = json.loads(recorded("agent-service-sidecar").body)["Proxy"]
    upstreams = [dict(upstream) for upstream in shown["Upstreams"]]
    for number in (0, 2, 3):  # these got the proxy's mode, or cannot have one
        del upstreams[number]["MeshGateway"]
    proxy = {"Config": shown["Config"], "Upstreams": upstreams, "MeshGateway": shown["MeshGateway"]}
    return {
        "ID": "web1",
        "Name": "web",
        "Port": 18080,
        "Tags": ["v1", "blue"],
        "Meta": {"version": "1"},
        "Connect": {
            "SidecarService": {
                "Port": 21500,
                "Tags": ["proxy-tag"],
                "Meta": {"team": "x"},
                "Proxy": {**proxy, "Expose": shown["Expose"]},
            }
        },
    }


def db_registration() -> dict[str, Any]:
    return {"ID": "db1", "Name": "db", "Port": 18081, "Connect": {"SidecarService": {"Port": 21510}}}


async def registered(world: World) -> None:
    """A-dc1 as it was: web1 and db1, each with its sidecar."""
    await world.dc1.ok("PUT", f"{SERVICE}/register", web_registration(), token=MANAGEMENT)
    await world.dc1.ok("PUT", f"{SERVICE}/register", db_registration(), token=MANAGEMENT)


async def with_defaults(world: World) -> None:
    await registered(world)
    world.dc1.dc.store.table("config_entries").put("proxy-defaults/global", PROXY_DEFAULTS)


async def delete_defaults(world: World) -> None:
    world.dc1.dc.store.table("config_entries").delete("proxy-defaults/global")


async def with_one_upstream(world: World) -> None:
    registration = web_registration()
    proxy = registration["Connect"]["SidecarService"]["Proxy"]
    proxy["Upstreams"] = proxy["Upstreams"][:1]
    await world.dc1.ok("PUT", f"{SERVICE}/register", registration, token=WEB)


async def deregister_web(world: World) -> None:
    await world.dc1.ok("PUT", f"{SERVICE}/deregister/web1", token=WEB)


async def db_with_ttl(world: World) -> None:
    """B-dc1 as it was: db with a TTL check, its sidecar with an alias of it."""
    sidecar = {"Port": 21001, "Checks": [{"Name": "alias", "AliasService": "db"}]}
    registration = {
        "Name": "db",
        "Port": 8081,
        "Check": {"CheckID": "dbttl", "TTL": "10s"},
        "Connect": {"SidecarService": sidecar},
    }
    await world.dc1.ok("PUT", f"{SERVICE}/register", registration)
    await world.dc1.ok("PUT", "/v1/agent/check/pass/dbttl")


async def with_check(world: World) -> None:
    await db_with_ttl(world)
    check = {"Name": "sidecar up", "ID": "sc1", "ServiceID": "db-sidecar-proxy", "TTL": "30s"}
    await world.dc1.ok("PUT", "/v1/agent/check/register", check)


async def with_update(world: World) -> None:
    await with_check(world)
    await world.dc1.ok("PUT", "/v1/agent/check/update/sc1", {"Status": "passing", "Output": "fine"})


SNAKE = {
    "name": "snake",
    "port": 1,
    "connect": {
        "sidecar_service": {
            "proxy": {
                "local_service_port": 5,
                "upstreams": [{"destination_name": "x", "local_bind_port": 7}],
            }
        }
    },
}


async def with_snake(world: World) -> None:
    await world.dc1.ok("PUT", f"{SERVICE}/register", SNAKE)


async def in_maintenance(world: World) -> None:
    await db_with_ttl(world)
    await world.dc1.ok("PUT", f"{SERVICE}/maintenance/db-sidecar-proxy?enable=true&reason=drain")


async def failing(world: World) -> None:
    """B-dc1 with db critical."""
    await db_with_ttl(world)
    await world.dc1.ok("PUT", "/v1/agent/check/fail/dbttl?note=x")


async def recovered(world: World) -> None:
    """From there, or from nothing, back to healthy."""
    await db_with_ttl(world)


async def matrix(world: World) -> None:
    """B-dc2: five ways to register addresses; and B-dc1 with db critical."""
    await failing(world)
    lan, wan = "127.0.0.22", "127.0.0.122"
    sidecars: dict[str, dict[str, Any]] = {
        "A": {
            "Address": lan,
            "TaggedAddresses": {
                "lan": {"Address": lan, "Port": 21010},
                "wan": {"Address": wan, "Port": 31010},
            },
        },
        "B": {"TaggedAddresses": {"wan": {"Address": wan, "Port": 31011}}},
        "C": {},
        "D": {
            "Address": "db.internal",
            "TaggedAddresses": {"wan": {"Address": "db.public", "Port": 31013}},
        },
        "E": {
            "Address": lan,
            "TaggedAddresses": {
                "wan": {"Address": wan, "Port": 31014},
                "wan_ipv4": {"Address": wan, "Port": 41014},
            },
        },
    }
    for number, (letter, sidecar) in enumerate(sidecars.items()):
        identifier = f"db{letter}"
        check = {"Name": letter.lower(), "AliasService": identifier}
        registration = {
            "ID": identifier,
            "Name": "db",
            "Port": 8082 + number,
            "Connect": {"SidecarService": {"Port": 21010 + number, "Checks": [check], **sidecar}},
        }
        await world.dc2.ok("PUT", f"{SERVICE}/register", registration)


async def external_node(world: World) -> None:
    """B-dc2: a node without an agent, registered from outside."""
    registration = {
        "Node": "ext1",
        "Address": "10.0.0.5",
        "TaggedAddresses": {"lan": "10.0.0.5", "wan": "192.0.2.5"},
        "Service": {
            "Kind": "connect-proxy",
            "ID": "dbX-proxy",
            "Service": "dbx-sidecar-proxy",
            "Port": 20000,
            "Proxy": {"DestinationServiceName": "dbx"},
        },
    }
    await world.dc2.ok("PUT", "/v1/catalog/register", registration)
