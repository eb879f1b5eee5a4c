"""Prepared queries: definition, execution, failover to the other datacenter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.conftest import Register
from tests.contract.federation import Federation
from tests.contract.services import proxy, ttl, wan
from tests.contract.versions import FAILOVER_KEYS, QUERY_KEYS, is_new

QUERY = "/v1/query"
Define = Callable[..., str]


@pytest.fixture
def define(dc1: Api) -> Iterator[Define]:
    """`define(Name=…, Service=…)` creates a query in the primary until the test's end; returns its ID."""
    created: list[str] = []

    def create(**definition: Any) -> str:
        query_id: str = dc1.post(QUERY, definition).json["ID"]
        created.append(query_id)
        return query_id

    yield create
    for query_id in created:
        dc1.delete(f"{QUERY}/{query_id}")


def failing_over(name: str, **more: Any) -> dict[str, Any]:
    """A mesh query for a service that may be answered from dc2."""
    return {
        "Service": name,
        "Failover": {"Datacenters": ["dc2"]},
        "OnlyPassing": True,
        "Connect": True,
        **more,
    }


def execute(api: Api, query: str, question: str = "connect=true") -> Any:
    """The answer of one execution."""
    return api.get(f"{QUERY}/{query}/execute?{question}").json


def ids(answer: Any) -> list[str]:
    """The service IDs in it, sorted."""
    return sorted(node["Service"]["ID"] for node in answer["Nodes"])


def _counts(expected: int, entries: Any) -> bool:
    return len(entries) == expected


def test_a_definition_is_kept_whole_and_read_as_a_list_of_one(dc1: Api, define: Define, name: str) -> None:
    query_id = define(Name=f"{name}-near", Service=failing_over(name), DNS={"TTL": "10s"})
    (body,) = dc1.get(f"{QUERY}/{query_id}").json
    assert body.pop("CreateIndex") == body.pop("ModifyIndex")
    newer, in_failover = (QUERY_KEYS, FAILOVER_KEYS) if is_new(dc1) else ({}, {})
    assert body == {
        "ID": query_id,
        "Name": f"{name}-near",
        "Session": "",
        "Token": "",
        "Template": {"Type": "", "Regexp": "", "RemoveEmptyTags": False},
        "Service": {
            "Service": name,
            "Failover": {"NearestN": 0, "Datacenters": ["dc2"], **in_failover},
            "OnlyPassing": True,
            "IgnoreCheckIDs": None,
            "Near": "",
            "Tags": None,
            "NodeMeta": None,
            "ServiceMeta": None,
            "Connect": True,
            **newer,
        },
        "DNS": {"TTL": "10s"},
    }
    assert query_id in {item["ID"] for item in dc1.get(QUERY).json}


def test_a_definition_can_be_replaced_and_deleted(dc1: Api, define: Define, name: str) -> None:
    query_id = define(Name=name, Service={"Service": name})
    assert dc1.put(f"{QUERY}/{query_id}", {"Name": name, "Service": {"Service": "other"}}).status == 200
    assert execute(dc1, name)["Service"] == "other"
    assert dc1.delete(f"{QUERY}/{query_id}").status == 200
    gone = dc1.get(f"{QUERY}/{query_id}")
    assert (gone.status, gone.text) == (404, "Query not found")


def test_a_name_is_taken_once(dc1: Api, define: Define, name: str) -> None:
    define(Name=name, Service={"Service": name})
    answer = dc1.post(QUERY, {"Name": name, "Service": {"Service": "other"}})
    assert answer.status == 500
    assert answer.text.endswith(f"name '{name}' aliases an existing query name")


def test_a_query_is_answered_locally_while_somebody_passes(
    federation: Federation, register: Register, define: Define, name: str
) -> None:
    for api in federation:
        register(api, proxy(name, ID=f"{name}-{api.name}"))
        api.until(f"/v1/health/connect/{name}?passing", len)
    query_id = define(Name=f"{name}-near", Service=failing_over(name), DNS={"TTL": "10s"})
    for query in (f"{name}-near", query_id):
        answer = federation.dc1.get(f"{QUERY}/{query}/execute?connect=true")
        body = answer.json
        assert ids(body) == [f"{name}-dc1"]
        assert set(body["Nodes"][0]) == {"Node", "Service", "Checks"}
        assert (body["Service"], body["Datacenter"], body["Failovers"]) == (name, "dc1", 0)
        assert body["DNS"] == {"TTL": "10s"}
        assert answer.index == 1


def test_a_query_fails_over_and_comes_back(
    federation: Federation, register: Register, define: Define, name: str
) -> None:
    for api in federation:
        register(api, proxy(name, ID=f"{name}-{api.name}", Check=ttl(f"{name}-ttl")))
        api.until(f"/v1/health/connect/{name}?passing", len)
    define(Name=name, Service=failing_over(name))
    for turn, count, datacenter in (
        ("pass", 1, "dc1"),
        ("warn", 0, "dc2"),
        ("fail", 0, "dc2"),
        ("pass", 1, "dc1"),
    ):
        federation.dc1.put(f"/v1/agent/check/{turn}/{name}-ttl")
        federation.dc1.until(f"/v1/health/connect/{name}?passing", partial(_counts, count))
        body = execute(federation.dc1, name)
        assert (ids(body), body["Datacenter"]) == ([f"{name}-{datacenter}"], datacenter)
        assert body["Failovers"] == (datacenter == "dc2")
        assert body["Nodes"][0]["Node"]["Datacenter"] == datacenter


def test_a_failover_answer_is_translated(
    federation: Federation, register: Register, define: Define, name: str
) -> None:
    tagged = wan("127.0.0.122", 31010)
    register(federation.dc2, proxy(name, ID=f"{name}-half", Address="127.0.0.22", TaggedAddresses=tagged))
    register(federation.dc2, proxy(name, ID=f"{name}-whole", TaggedAddresses=tagged))
    federation.dc2.until(f"/v1/health/connect/{name}", partial(_counts, 2))
    define(Name=name, Service=failing_over(name))
    found = {node["Service"]["ID"]: node["Service"] for node in execute(federation.dc1, name)["Nodes"]}
    for service_id, address in ((f"{name}-half", "127.0.0.22"), (f"{name}-whole", "127.0.0.122")):
        service = found[service_id]
        assert (service["Address"], service["Port"]) == (address, 31010)
        assert service["TaggedAddresses"]["wan"] == tagged["wan"]


def test_nobody_anywhere_is_an_empty_answer(federation: Federation, define: Define, name: str) -> None:
    define(Name=name, Service=failing_over(name))
    body = execute(federation.dc1, name)
    assert not body["Nodes"]
    assert (body["Datacenter"], body["Failovers"]) == ("dc2", 1)


def test_an_unknown_datacenter_is_skipped(dc1: Api, define: Define, name: str) -> None:
    define(Name=name, Service=failing_over(name, Failover={"Datacenters": ["dc9"]}))
    body = execute(dc1, name)
    assert not body["Nodes"]
    assert (body["Datacenter"], body["Failovers"]) == ("dc1", 0)


def test_the_nearest_datacenters_are_tried_too(
    federation: Federation, register: Register, define: Define, name: str
) -> None:
    register(federation.dc2, proxy(name))
    federation.dc2.until(f"/v1/health/connect/{name}", len)
    define(Name=name, Service=failing_over(name, Failover={"NearestN": 1}))
    assert execute(federation.dc1, name)["Datacenter"] == "dc2"


def test_only_a_mesh_query_answers_with_proxies(
    dc1: Api, register: Register, define: Define, name: str
) -> None:
    register(dc1, {"Name": name, "Port": 8080})
    register(dc1, proxy(name))
    dc1.until(f"/v1/health/connect/{name}", len)
    define(Name=f"{name}-plain", Service={"Service": name})
    define(Name=f"{name}-mesh", Service={"Service": name, "Connect": True})
    assert ids(execute(dc1, f"{name}-plain", "")) == [name]
    assert ids(execute(dc1, f"{name}-plain")) == [f"{name}-proxy"]
    assert ids(execute(dc1, f"{name}-mesh", "")) == [f"{name}-proxy"]


def test_without_only_passing_a_warning_will_do(
    dc1: Api, register: Register, define: Define, name: str
) -> None:
    for status in ("passing", "warning", "critical"):
        register(dc1, proxy(name, ID=f"{name}-{status}", Check=ttl(f"{name}-{status}-ttl", status)))
    dc1.until(f"/v1/health/connect/{name}", lambda found: len(found) == 3)
    define(Name=f"{name}-loose", Service={"Service": name, "Connect": True})
    define(Name=f"{name}-strict", Service={"Service": name, "Connect": True, "OnlyPassing": True})
    assert ids(execute(dc1, f"{name}-loose")) == [f"{name}-passing", f"{name}-warning"]
    assert ids(execute(dc1, f"{name}-strict")) == [f"{name}-passing"]


def test_tags_and_a_limit_narrow_an_answer(dc1: Api, register: Register, define: Define, name: str) -> None:
    for tags in (["a"], ["a", "b"], ["b"]):
        register(dc1, proxy(name, ID=f"{name}-{''.join(tags)}", Tags=tags))
    dc1.until(f"/v1/health/connect/{name}", lambda found: len(found) == 3)
    define(Name=f"{name}-a", Service={"Service": name, "Connect": True, "Tags": ["a", "!b"]})
    define(Name=f"{name}-all", Service={"Service": name, "Connect": True})
    assert ids(execute(dc1, f"{name}-a")) == [f"{name}-a"]
    assert len(execute(dc1, f"{name}-all", "connect=true&limit=2")["Nodes"]) == 2


def test_a_template_names_the_service_it_resolved_to(
    dc1: Api, register: Register, define: Define, name: str
) -> None:
    register(dc1, proxy(name))
    dc1.until(f"/v1/health/connect/{name}", len)
    template = {"Type": "name_prefix_match", "Regexp": f"^{name}-for-(.*?)$"}
    define(Name=f"{name}-for-", Template=template, Service={"Service": "${match(1)}", "Connect": True})
    body = execute(dc1, f"{name}-for-{name}")
    assert (body["Service"], ids(body)) == (name, [f"{name}-proxy"])
    assert execute(dc1, f"{name}-for-nobody")["Service"] == "nobody"


def test_a_query_is_not_waited_for(dc1: Api, define: Define, name: str) -> None:
    define(Name=name, Service={"Service": name})
    answer = dc1.get(f"{QUERY}/{name}/execute?connect=true&index=5&wait=10s")
    assert (answer.status, answer.index) == (200, 1)
    assert answer.seconds < 5


def test_a_query_lives_in_one_datacenter(federation: Federation, define: Define, name: str) -> None:
    define(Name=name, Service={"Service": name})
    assert federation.dc2.get(f"{QUERY}/{name}/execute").status == 404
    answer = federation.dc1.get(f"{QUERY}/{name}/execute?dc=dc2")
    assert answer.status == 404
    assert answer.text.endswith("Query not found")
    assert execute(federation.dc2, name, "connect=true&dc=dc1")["Service"] == name
