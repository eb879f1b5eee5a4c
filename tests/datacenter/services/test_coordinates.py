"""Coordinates beyond the recordings."""

from __future__ import annotations

from tests.datacenter.registrations import external_node
from tests.datacenter.world import READ_ONLY, world_a, world_b


async def test_only_agents_have_coordinates() -> None:
    world = world_b()
    await external_node(world)
    assert [each["Node"] for each in await world.dc2.ok("GET", "/v1/coordinate/nodes")] == ["b2"]
    assert (await world.dc2.call("GET", "/v1/coordinate/node/ext1")).status == 404
    assert [each["Node"] for each in await world.dc1.ok("GET", "/v1/coordinate/nodes?dc=dc2")] == ["b2"]


async def test_a_node_must_be_readable() -> None:
    dc1 = world_a().dc1
    assert await dc1.ok("GET", "/v1/coordinate/nodes") == []
    assert (await dc1.call("GET", "/v1/coordinate/node/a1")).status == 404
    assert len(await dc1.ok("GET", "/v1/coordinate/node/a1", token=READ_ONLY)) == 1
