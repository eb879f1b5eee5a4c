"""Health beyond the recordings: passing, tags, node-meta, states, rights."""

from __future__ import annotations

import pytest

from tests.datacenter.world import DB, MANAGEMENT, READ_ONLY, Site, World, settings, world_a

REGISTER = "/v1/agent/service/register"


async def site() -> Site:
    """Three instances of web, one of each state."""
    made = World().add(settings("dc1"))
    for status in ("passing", "warning", "critical"):
        check = {"CheckID": f"check {status}", "TTL": "1h", "Status": status}
        registration = {"ID": status, "Name": "web", "Port": 1, "Tags": ["All", status], "Check": check}
        await made.ok("PUT", REGISTER, registration)
    return made


async def found(made: Site, query: str = "") -> list[str]:
    return [entry["Service"]["ID"] for entry in await made.ok("GET", f"/v1/health/service/web{query}")]


@pytest.mark.parametrize("query", ["?passing", "?passing=1", "?passing=true", "?passing=t", "?passing="])
async def test_passing_means_no_warning_either(query: str) -> None:
    assert await found(await site(), query) == ["passing"]


@pytest.mark.parametrize("query", ["", "?passing=false", "?passing=0"])
async def test_otherwise_all_of_them(query: str) -> None:
    assert await found(await site(), query) == ["critical", "passing", "warning"]


async def test_tags() -> None:
    made = await site()
    assert await found(made, "?tag=all") == ["critical", "passing", "warning"]
    assert await found(made, "?tag=ALL&tag=warning") == ["warning"]
    assert await found(made, "?tag=none") == []


async def test_node_meta() -> None:
    made = await site()
    assert len(await found(made, "?node-meta=consul-network-segment:")) == 3
    assert await found(made, "?node-meta=rack:r1") == []


async def test_near_another_node() -> None:
    made = await site()
    external = {"Node": "ext", "Address": "10.0.0.5", "Service": {"ID": "e", "Service": "web"}}
    await made.ok("PUT", "/v1/catalog/register", external)
    assert (await found(made, "?near=ext"))[0] == "e"
    assert (await found(made, "?near=_agent"))[-1] == "e"


async def test_checks_of_a_service() -> None:
    made = await site()
    checks = await made.ok("GET", "/v1/health/checks/web")
    assert [check["CheckID"] for check in checks] == ["check critical", "check passing", "check warning"]
    filtered = await made.ok("GET", "/v1/health/checks/web?filter=Status==warning")
    assert [check["CheckID"] for check in filtered] == ["check warning"]


@pytest.mark.parametrize(("state", "count"), [("any", 4), ("passing", 2), ("critical", 1), ("odd", 0)])
async def test_checks_in_a_state(state: str, count: int) -> None:
    assert len(await (await site()).ok("GET", f"/v1/health/state/{state}")) == count


@pytest.mark.parametrize("target", ["service/", "connect/", "node/", "checks/", "state/"])
async def test_names_are_needed(target: str) -> None:
    assert (await (await site()).call("GET", f"/v1/health/{target}")).status == 400


async def test_a_service_and_its_node_must_be_readable() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", REGISTER, {"Name": "db", "Check": {"TTL": "1h"}}, token=DB)
    assert await dc1.ok("GET", "/v1/health/service/db") == []
    assert await dc1.ok("GET", "/v1/health/checks/db") == []
    assert len(await dc1.ok("GET", "/v1/health/service/db", token=READ_ONLY)) == 1
    assert len(await dc1.ok("GET", "/v1/health/checks/db", token=MANAGEMENT)) == 1


async def test_services_and_nodes_are_one_in_any_case() -> None:
    made = World().add(settings("dc1"))
    await made.ok("PUT", REGISTER, {"Name": "Service_A", "Port": 1, "Connect": {"SidecarService": {}}})
    node = (await made.ok("GET", "/v1/catalog/nodes"))[0]["Node"]
    for name in ("Service_A", "service_a", "SERVICE_A"):
        for path in ("health/service", "health/connect", "catalog/service", "catalog/connect"):
            assert len(await made.ok("GET", f"/v1/{path}/{name}")) == 1, path
        assert len(await made.ok("GET", f"/v1/health/checks/{name}-Sidecar-Proxy")) == 2
    for path in ("health/node", "catalog/node"):
        assert await made.ok("GET", f"/v1/{path}/{node.upper()}")
    listed = await made.ok("GET", "/v1/catalog/services")
    assert list(listed) == ["Service_A", "Service_A-sidecar-proxy", "consul"]
