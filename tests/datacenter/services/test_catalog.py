"""The catalog beyond the recordings: registration from outside, filters, rights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datacenter.registrations import external_node
from tests.datacenter.world import MANAGEMENT, READ_ONLY, WEB, Site, World, settings, world_a, world_b

NODE = {"Node": "ext", "Address": "10.0.0.5"}


def site() -> Site:
    return World().add(settings("dc1"))


async def register(dc: Site, **more: Any) -> None:
    assert await dc.ok("PUT", "/v1/catalog/register", {**NODE, **more}) is True


async def names(dc: Site, target: str, key: str) -> list[str]:
    return [entry[key] for entry in await dc.ok("GET", target)]


async def test_a_node_with_service_and_checks() -> None:
    dc1 = site()
    check = {"CheckID": "c", "Name": "n", "Status": "passing", "ServiceID": "web1"}
    await register(
        dc1, Service={"ID": "web1", "Service": "web", "Port": 1}, Check=check, NodeMeta={"rack": "r1"}
    )
    entry = (await dc1.ok("GET", "/v1/health/service/web"))[0]
    assert (entry["Node"]["Node"], entry["Node"]["Meta"], entry["Service"]["ID"]) == (
        "ext",
        {"rack": "r1"},
        "web1",
    )
    assert [(each["CheckID"], each["ServiceName"]) for each in entry["Checks"]] == [("c", "web")]


async def test_a_check_without_a_status_is_critical() -> None:
    dc1 = site()
    await register(dc1, Checks=[{"Name": "n"}, {"CheckID": "m", "Status": "warning"}])
    found = await dc1.ok("GET", "/v1/health/node/ext")
    assert [(each["CheckID"], each["Status"]) for each in found] == [("m", "warning"), ("n", "critical")]


async def test_a_definition_is_shown_without_what_is_empty_or_unknown() -> None:
    dc1 = site()
    definition = {
        "Interval": 1_500_000_000,
        "Timeout": "70s",
        "TTL": "10s",
        "HTTP": "",
        "Header": {"a": ["b"]},
        "TLSSkipVerify": True,
        "Bogus": 1,
    }
    await register(dc1, Check={"Name": "n", "Definition": definition})
    (found,) = await dc1.ok("GET", "/v1/health/node/ext")
    assert found["Definition"] == {
        "Interval": "1.5s",
        "Timeout": "1m10s",
        "TTL": 10 * 10**9,
        "Header": {"a": ["b"]},
        "TLSSkipVerify": True,
    }


REFUSED: dict[str, dict[str, Any]] = {
    "Must provide node and address": {"Node": ""},
    "Must provide service name with ID": {"Service": {"ID": "x"}},
    "Must provide a check ID or name": {"Check": {}},
    "Unknown service ID 'x' for check ID 'c'": {"Check": {"CheckID": "c", "ServiceID": "x"}},
    "Proxy.DestinationServiceName must be non-empty for Connect proxy services": {
        "Service": {"Kind": "connect-proxy", "Service": "p", "Port": 1}
    },
}


@pytest.mark.parametrize(("text", "change"), REFUSED.items())
async def test_refused_and_nothing_kept(text: str, change: dict[str, Any]) -> None:
    dc1 = site()
    reply = await dc1.call("PUT", "/v1/catalog/register", {**NODE, **change})
    assert (reply.status, reply.body.decode()) == (500, text)
    assert await names(dc1, "/v1/catalog/nodes", "Node") == ["dc1-node"]


async def test_deregistering_a_check_a_service_a_node() -> None:
    dc1 = site()
    await register(dc1, Service={"Service": "web"}, Check={"CheckID": "c"})

    async def deregister(**what: str) -> None:
        assert await dc1.ok("PUT", "/v1/catalog/deregister", {"Node": "ext", **what}) is True

    await deregister(CheckID="c")
    assert await dc1.ok("GET", "/v1/health/node/ext") == []
    await deregister(ServiceID="web")
    assert await dc1.ok("GET", "/v1/catalog/service/web") == []
    await deregister()
    assert await dc1.ok("GET", "/v1/catalog/node/ext") is None
    await deregister()
    assert (await dc1.call("PUT", "/v1/catalog/deregister", {})).body == b"Must provide node"


async def test_rights_to_register() -> None:
    dc1 = world_a().dc1
    for token in (WEB, READ_ONLY):
        headers = {"x-consul-token": token}
        assert (await dc1.call("PUT", "/v1/catalog/register", NODE, headers)).status == 403
        assert (await dc1.call("PUT", "/v1/catalog/deregister", {"Node": "ext"}, headers)).status == 403


async def test_what_a_token_sees() -> None:
    dc1 = world_a().dc1
    assert await dc1.ok("GET", "/v1/catalog/services") == {}
    assert await dc1.ok("GET", "/v1/catalog/nodes") == []
    assert await dc1.ok("GET", "/v1/catalog/node/a1") is None
    assert await dc1.ok("GET", "/v1/internal/ui/nodes") == []
    assert list(await dc1.ok("GET", "/v1/catalog/services", token=READ_ONLY)) == ["consul"]
    assert list((await dc1.ok("GET", "/v1/catalog/node/a1", token=MANAGEMENT))["Services"]) == ["consul"]


@pytest.mark.parametrize("target", ["service/", "connect/", "node/"])
async def test_names_are_needed(target: str) -> None:
    assert (await site().call("GET", f"/v1/catalog/{target}")).status == 400


async def test_filters_and_tags() -> None:
    dc1 = site()
    for number, tags in enumerate((["a"], ["a", "b"])):
        await register(dc1, Service={"ID": f"web{number}", "Service": "web", "Tags": tags})
    assert await names(dc1, "/v1/catalog/service/web?tag=a", "ServiceID") == ["web0", "web1"]
    assert await names(dc1, "/v1/catalog/service/web?tag=a&tag=b", "ServiceID") == ["web1"]
    assert await names(dc1, "/v1/catalog/service/web?filter=b+in+ServiceTags", "ServiceID") == ["web1"]
    assert await names(dc1, "/v1/catalog/nodes?filter=Node==ext", "Node") == ["ext"]
    node = await dc1.ok("GET", "/v1/catalog/node/ext?filter=b+in+Tags")
    assert list(node["Services"]) == ["web1"]
    assert (await dc1.ok("GET", "/v1/catalog/services"))["web"] == ["a", "b"]


async def test_near_comes_first() -> None:
    dc1 = site()
    await dc1.ok("PUT", "/v1/agent/service/register", {"Name": "web"})
    await register(dc1, Service={"Service": "web"})
    assert await names(dc1, "/v1/catalog/service/web?near=ext", "Node") == ["ext", "dc1-node"]
    assert await names(dc1, "/v1/catalog/service/web?near=_agent", "Node") == ["dc1-node", "ext"]


async def test_registering_in_another_datacenter() -> None:
    world = world_b()
    await external_node(world)
    assert await names(world.dc1, "/v1/catalog/connect/dbx?dc=dc2", "ServiceID") == ["dbX-proxy"]
    assert await world.dc1.ok("GET", "/v1/catalog/connect/dbx") == []
