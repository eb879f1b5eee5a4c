"""Executing prepared queries: who qualifies, whose rights count, where else is asked."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.http.context import Answer
from datacenter.http.forward import DATACENTERS
from datacenter.state.errors import ApiError
from tests.datacenter.world import DB, MANAGEMENT, READ_ONLY, Site, World, settings, world_a

REGISTER = "/v1/agent/service/register"


async def site(*definitions: dict[str, Any]) -> Site:
    made = World().add(settings("dc1"))
    for definition in definitions:
        await made.ok("PUT", REGISTER, {"Name": "db", "Port": 1, **definition})
    return made


async def found(made: Site, query: dict[str, Any] | None = None, parameters: str = "") -> list[str]:
    """IDs of the instances that a query for db yields, sorted."""
    definition = {"Name": "q", "Service": {"Service": "db", **(query or {})}}
    created = await made.ok("POST", "/v1/query", definition)
    answer = await made.ok("GET", f"/v1/query/q/execute{parameters}")
    await made.ok("DELETE", f"/v1/query/{created['ID']}")
    return sorted(entry["Service"]["ID"] for entry in answer["Nodes"])


def check(status: str) -> dict[str, Any]:
    return {"ID": status, "Check": {"CheckID": f"check {status}", "TTL": "1h", "Status": status}}


async def test_only_critical_is_left_out_unless_only_passing_is_wanted() -> None:
    made = await site(check("passing"), check("warning"), check("critical"))
    assert await found(made) == ["passing", "warning"]
    assert await found(made, {"OnlyPassing": True}) == ["passing"]


async def test_checks_can_be_ignored() -> None:
    made = await site(check("warning"), check("critical"))
    assert await found(made, {"IgnoreCheckIDs": ["check critical"]}) == ["critical", "warning"]


async def test_all_tags_are_required_and_some_excluded() -> None:
    made = await site({"ID": "a", "Tags": ["x", "Y"]}, {"ID": "b", "Tags": ["x"]}, {"ID": "c"})
    assert await found(made, {"Tags": ["X"]}) == ["a", "b"]
    assert await found(made, {"Tags": ["x", "y"]}) == ["a"]
    assert await found(made, {"Tags": ["!y"]}) == ["b", "c"]
    assert await found(made, {"Tags": ["x", "!y"]}) == ["b"]


async def test_meta() -> None:
    made = await site({"ID": "a", "Meta": {"v": "1"}}, {"ID": "b"})
    assert await found(made, {"ServiceMeta": {"v": "1"}}) == ["a"]
    assert await found(made, {"NodeMeta": {"rack": "r1"}}) == []
    assert await found(made, {"NodeMeta": {"consul-network-segment": ""}}) == ["a", "b"]


async def test_connect_by_definition_or_by_parameter() -> None:
    made = await site({"Connect": {"SidecarService": {"Checks": [{"AliasService": "db"}]}}})
    assert await found(made) == ["db"]
    assert await found(made, parameters="?connect=true") == ["db-sidecar-proxy"]
    assert await found(made, {"Connect": True}, "?connect=false") == ["db-sidecar-proxy"]


async def test_limit_and_near() -> None:
    made = await site({"ID": "here"})
    external = {"Node": "ext", "Address": "10.0.0.5", "Service": {"ID": "there", "Service": "db"}}
    await made.ok("PUT", "/v1/catalog/register", external)
    for _ in range(5):
        assert await found(made, parameters="?limit=1&near=ext") == ["there"]
        assert await found(made, {"Near": "_agent"}, "?limit=1") == ["here"]
    assert await found(made, parameters="?limit=0") == ["here", "there"]


async def test_the_order_is_shuffled() -> None:
    made = await site(*({"ID": f"db{number}"} for number in range(6)))
    await made.ok("POST", "/v1/query", {"Name": "q", "Service": {"Service": "db"}})
    orders = set()
    for _ in range(10):
        answer = await made.ok("GET", "/v1/query/q/execute")
        orders.add(tuple(entry["Service"]["ID"] for entry in answer["Nodes"]))
    assert len(orders) > 1


async def test_a_parameter_that_is_no_boolean() -> None:
    made = await site()
    await made.ok("POST", "/v1/query", {"Name": "q", "Service": {"Service": "db"}})
    reply = await made.call("GET", "/v1/query/q/execute?connect=maybe")
    assert (reply.status, b'parsing "maybe": invalid syntax' in reply.body) == (500, True)


async def test_a_stored_token_replaces_the_caller_s() -> None:
    dc1 = world_a().dc1
    await dc1.ok("PUT", REGISTER, {"Name": "db"}, token=DB)
    for name, stored in (("plain", ""), ("with-token", READ_ONLY)):
        query = {"Name": name, "Token": stored, "Service": {"Service": "db"}}
        await dc1.ok("POST", "/v1/query", query, token=MANAGEMENT)
    assert (await dc1.ok("GET", "/v1/query/plain/execute"))["Nodes"] == []
    assert len((await dc1.ok("GET", "/v1/query/with-token/execute"))["Nodes"]) == 1


def many(*names: str) -> World:
    world = World()
    for name in names:
        world.add(settings(name))
    return world


async def executed(world: World, failover: dict[str, Any]) -> tuple[str, int, int]:
    """Datacenter, failovers and number of nodes of the answer."""
    query = {"Name": "q", "Service": {"Service": "db", "Failover": failover}}
    await world.dc1.ok("POST", "/v1/query", query)
    answer = await world.dc1.ok("GET", "/v1/query/q/execute")
    return answer["Datacenter"], answer["Failovers"], len(answer["Nodes"])


async def test_listed_datacenters_in_their_order() -> None:
    world = many("dc1", "dc2", "dc3")
    for name in ("dc2", "dc3"):
        await world.site(name).ok("PUT", REGISTER, {"Name": "db"})
    assert await executed(world, {"Datacenters": ["dc3", "dc2"]}) == ("dc3", 1, 1)


async def test_the_nearest_before_the_listed_and_each_once() -> None:
    world = many("dc1", "dc2", "dc3")
    await world.site("dc3").ok("PUT", REGISTER, {"Name": "db"})
    assert await executed(world, {"NearestN": 1, "Datacenters": ["dc1", "dc2", "dc3"]}) == ("dc3", 2, 1)


async def test_unknown_datacenters_are_skipped_and_not_counted() -> None:
    world = many("dc1", "dc2")
    await world.dc2.ok("PUT", REGISTER, {"Name": "db"})
    assert await executed(world, {"Datacenters": ["dc9", "dc2"]}) == ("dc2", 1, 1)


async def test_one_that_is_down_is_passed_over() -> None:
    world = many("dc1", "dc2", "dc3")
    world.down.add("dc2")
    await world.site("dc3").ok("PUT", REGISTER, {"Name": "db"})
    assert await executed(world, {"Datacenters": ["dc2", "dc3"]}) == ("dc3", 2, 1)


async def test_all_of_them_down() -> None:
    world = many("dc1", "dc2")
    world.down.add("dc2")
    assert await executed(world, {"Datacenters": ["dc2"]}) == ("dc1", 1, 0)


async def test_the_failover_is_one_hop() -> None:
    """The other datacenter does not fail over again, not even back to us."""
    world = many("dc1", "dc2")
    await world.dc2.ok("POST", "/v1/query", {"Name": "q2", "Service": {"Service": "db"}})
    assert await executed(world, {"Datacenters": ["dc2"]}) == ("dc2", 1, 0)


async def test_a_datacenter_that_answers_nonsense_is_passed_over() -> None:
    world = many("dc1", "dc2")

    class Odd:
        async def call(self, *arguments: object, **more: object) -> Answer:
            return Answer(value=["no", "object"], index=0)

    object.__setattr__(world.dc1.dc, "forwarder", Odd())  # frozen for everyone but a test
    assert await executed(world, {"Datacenters": ["dc2"]}) == ("dc1", 1, 0)


async def test_rights_count_elsewhere_too() -> None:
    world = world_a()
    await world.dc2.ok("PUT", REGISTER, {"Name": "db"}, token=DB)
    query = {"Name": "q", "Service": {"Service": "db", "Failover": {"Datacenters": ["dc2"]}}}
    await world.dc1.ok("POST", "/v1/query", query, token=MANAGEMENT)
    assert (await world.dc1.ok("GET", "/v1/query/q/execute"))["Nodes"] == []
    assert len((await world.dc1.ok("GET", "/v1/query/q/execute", token=READ_ONLY))["Nodes"]) == 1


@pytest.mark.parametrize("translate", [True, False])
async def test_a_failover_s_addresses_are_translated_if_set(translate: bool) -> None:
    world = World()
    for name in ("dc1", "dc2"):
        world.add(settings(name, translate_wan_addrs=translate))
    tagged = {"wan": {"Address": "192.0.2.1", "Port": 9}}
    await world.dc2.ok("PUT", REGISTER, {"Name": "db", "Port": 1, "TaggedAddresses": tagged})
    query = {"Name": "q", "Service": {"Service": "db", "Failover": {"Datacenters": ["dc2"]}}}
    await world.dc1.ok("POST", "/v1/query", query)
    service = (await world.dc1.ok("GET", "/v1/query/q/execute"))["Nodes"][0]["Service"]
    assert (service["Address"], service["Port"]) == (("192.0.2.1", 9) if translate else ("", 1))


async def test_the_error_of_a_dial_is_not_the_answer_s() -> None:
    world = many("dc1", "dc2")
    world.dc1.dc.store.table(DATACENTERS).put("dc2", {"Address": "http://dc2.example:8500"})
    world.down.add("dc2")
    with pytest.raises(ApiError, match="connection refused"):
        await world.dc1.dc.forwarder.call("GET", "http://dc2.example:8500/v1/status/leader")
    assert (await executed(world, {"Datacenters": ["dc2"]}))[2] == 0
