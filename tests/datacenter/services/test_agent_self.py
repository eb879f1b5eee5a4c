"""The agent's own node, its identity across restarts, members and peers."""

from __future__ import annotations

import uuid
from pathlib import Path

from datacenter.state.store import Store
from tests.datacenter.world import READ_ONLY, World, settings, world_a


async def test_the_node_s_id_survives_a_restart(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        store = Store(tmp_path / "db")
        site = World().add(settings("dc1"), store)
        found.append((await site.ok("GET", "/v1/catalog/node/dc1-node"))["Node"]["ID"])
        store.close()
    assert found[0] == found[1]
    assert uuid.UUID(found[0]).version == 4


async def test_a_renamed_node_leaves_nothing_under_the_old_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    before = World().add(settings("dc1", node_name="old"), store)
    await before.ok("PUT", "/v1/agent/service/register", {"Name": "web", "Check": {"TTL": "1h"}})
    identifier = (await before.ok("GET", "/v1/catalog/node/old"))["Node"]["ID"]
    after = World().add(settings("dc1", node_name="new"), store)
    nodes = await after.ok("GET", "/v1/catalog/nodes")
    assert [(node["Node"], node["ID"]) for node in nodes] == [("new", identifier)]
    assert await after.ok("GET", "/v1/health/service/web") == []
    assert after.dc.inventory.definitions.rows() == []
    store.close()


async def test_a_node_known_by_a_name() -> None:
    site = World().add(settings("dc1", node_address="n1.internal", node_wan_address="fd00::1"))
    node = (await site.ok("GET", "/v1/catalog/nodes"))[0]
    assert node["TaggedAddresses"] == {"lan": "n1.internal", "wan": "fd00::1", "wan_ipv6": "fd00::1"}


async def test_members_and_peers() -> None:
    dc1 = world_a().dc1
    assert await dc1.ok("GET", "/v1/agent/members") == []
    members = await dc1.ok("GET", "/v1/agent/members", token=READ_ONLY)
    assert [(member["Name"], member["Tags"]["dc"], member["Tags"]["acls"]) for member in members] == [
        ("a1", "dc1", "1")
    ]
    assert await dc1.ok("GET", "/v1/status/peers") == ["127.0.0.11:8300"]


async def test_leader_of_another_datacenter() -> None:
    assert await world_a().dc1.ok("GET", "/v1/status/leader?dc=dc2") == "127.0.0.12:8300"
