"""Health of what one connects to: filters, the blocking read, and how it looks from the other datacenter."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.conftest import Register
from tests.contract.federation import Federation
from tests.contract.services import proxy, sidecar, tcp, ttl, wan

CONNECT = "/v1/health/connect"


def ids(entries: Any) -> list[str]:
    """The service IDs of a health answer, sorted."""
    return sorted(entry["Service"]["ID"] for entry in entries)


def status_of(check_id: str, entries: Any) -> str | None:
    """The status of one check in a health answer."""
    found = [check for entry in entries for check in entry["Checks"] if check["CheckID"] == check_id]
    return found[0]["Status"] if found else None


def _differs(expected: list[str], entries: Any) -> bool:
    return ids(entries) != expected


def test_an_entry_has_every_field_a_client_reads(dc1: Api, register: Register, name: str) -> None:
    register(dc1, proxy(name, Address="127.0.0.9", Tags=["v1"], Check=ttl(f"{name}-ttl")))
    answer = dc1.until(f"{CONNECT}/{name}", len)
    (entry,) = answer.json
    node, service = entry["Node"], entry["Service"]
    assert set(entry) == {"Node", "Service", "Checks"}
    assert set(node) == {
        "ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex",
    }  # fmt: skip
    assert node["Datacenter"] == "dc1"
    assert {"lan", "wan"} <= set(node["TaggedAddresses"])
    assert service["Kind"] == "connect-proxy"
    assert service["Proxy"]["DestinationServiceName"] == name
    assert (service["Address"], service["Port"]) == ("127.0.0.9", 21991)
    assert service["Weights"] == {"Passing": 1, "Warning": 1}
    assert service["Tags"] == ["v1"]
    assert service["Connect"] == {}
    assert service["TaggedAddresses"]["wan_ipv4"] == {"Address": "127.0.0.9", "Port": 21991}
    checks = {check["CheckID"]: check for check in entry["Checks"]}
    assert set(checks) == {"serfHealth", f"{name}-ttl"}
    assert set(checks["serfHealth"]) == set(checks[f"{name}-ttl"])
    assert checks[f"{name}-ttl"]["ServiceID"] == f"{name}-proxy"
    assert checks[f"{name}-ttl"]["Type"] == "ttl"


def test_a_health_answer_says_where_it_comes_from(dc1: Api, register: Register, name: str) -> None:
    register(dc1, proxy(name))
    answer = dc1.until(f"{CONNECT}/{name}", len)
    assert answer.index > 1
    assert answer.headers["x-consul-lastcontact"] == "0"
    assert answer.headers["x-consul-knownleader"] in {"true", "false"}  # false with the streaming backend
    assert answer.headers["x-consul-effective-consistency"] == "leader"
    assert answer.headers["content-type"] == "application/json"


def test_a_native_service_is_connected_to_directly(dc1: Api, register: Register, name: str) -> None:
    register(dc1, {"Name": name, "Port": 8080, "Connect": {"Native": True}})
    register(dc1, proxy(name))
    entries = dc1.until(f"{CONNECT}/{name}", lambda found: len(found) == 2).json
    (native,) = (entry["Service"] for entry in entries if entry["Service"].get("Kind", "") == "")
    assert native["Connect"] == {"Native": True}
    assert ids(dc1.get(f"/v1/health/service/{name}").json) == [name]


def test_passing_leaves_out_warning_and_critical(dc1: Api, register: Register, name: str) -> None:
    for status in ("passing", "warning", "critical"):
        register(dc1, proxy(name, ID=f"{name}-{status}", Check=ttl(f"{name}-{status}-ttl", status)))
    dc1.until(f"{CONNECT}/{name}", lambda found: len(found) == 3)
    everyone = sorted(f"{name}-{status}" for status in ("passing", "warning", "critical"))
    for question, expected in (
        ("", everyone),
        ("?passing=false", everyone),
        ("?passing", [f"{name}-passing"]),
        ("?passing=1", [f"{name}-passing"]),
        ("?passing=true", [f"{name}-passing"]),
    ):
        assert ids(dc1.get(f"{CONNECT}/{name}{question}").json) == expected


def test_an_answer_can_be_filtered(dc1: Api, register: Register, name: str) -> None:
    for tag in ("a", "b"):
        register(dc1, proxy(name, ID=f"{name}-{tag}", Tags=[tag]))
    dc1.until(f"{CONNECT}/{name}", lambda found: len(found) == 2)
    assert ids(dc1.get(f"{CONNECT}/{name}?filter=%22a%22+in+Service.Tags").json) == [f"{name}-a"]
    assert ids(dc1.get(f"{CONNECT}/{name}?filter=Service.ID+!=+%22{name}-a%22").json) == [f"{name}-b"]


@pytest.mark.parametrize("question", ["?passing=1&stale", "?passing&cached", "?near=_agent", "?consistent"])
def test_the_modes_of_reading_say_the_same(dc1: Api, register: Register, name: str, question: str) -> None:
    register(dc1, proxy(name))
    dc1.until(f"{CONNECT}/{name}", len)
    assert ids(dc1.until(f"{CONNECT}/{name}{question}", len).json) == [f"{name}-proxy"]


def test_a_ttl_check_turns_and_wakes_the_watchers(
    federation: Federation, register: Register, name: str
) -> None:
    dc1 = federation.dc1
    register(dc1, proxy(name, Check=ttl(f"{name}-ttl")))
    path = f"{CONNECT}/{name}?passing"
    for turn, expected in (
        ("fail", []),
        ("pass", [f"{name}-proxy"]),
        ("warn", []),
        ("pass", [f"{name}-proxy"]),
    ):
        known = dc1.until(path, partial(_differs, expected)).index
        pending = dc1.hold(f"{path}&index={known}&wait=30s")
        assert dc1.put(f"/v1/agent/check/{turn}/{name}-ttl?note=as+asked").status == 200
        answer = pending.result()
        assert ids(answer.json) == expected
        assert answer.index > known
        assert answer.seconds < 5


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (("pass", None), ("passing", "said so")),
        (("warn", None), ("warning", "said so")),
        (("fail", None), ("critical", "said so")),
        (("update", {"Status": "warning", "Output": "told so"}), ("warning", "told so")),
    ],
)
def test_the_word_on_a_ttl_check_is_shown(
    dc1: Api, register: Register, name: str, word: tuple[str, object], expected: tuple[str, str]
) -> None:
    register(dc1, proxy(name))
    check = {"ID": f"{name}-late", "Name": "late", "ServiceID": f"{name}-proxy", "TTL": "300s"}
    assert dc1.put("/v1/agent/check/register", check).status == 200
    assert dc1.get("/v1/agent/checks").json[f"{name}-late"]["Status"] == "critical"
    assert dc1.put(f"/v1/agent/check/{word[0]}/{name}-late?note=said+so", word[1]).status == 200
    found = dc1.get("/v1/agent/checks").json[f"{name}-late"]
    assert (found["Status"], found["Output"]) == expected
    dc1.until(f"{CONNECT}/{name}", lambda entries: status_of(f"{name}-late", entries) == expected[0])
    assert dc1.put(f"/v1/agent/check/deregister/{name}-late").status == 200
    dc1.until(f"{CONNECT}/{name}", lambda entries: entries and status_of(f"{name}-late", entries) is None)


def test_a_ttl_check_without_a_word_goes_critical(dc1: Api, register: Register, name: str) -> None:
    register(dc1, proxy(name, Check=ttl(f"{name}-ttl") | {"TTL": "1s"}))
    dc1.until(f"{CONNECT}/{name}", lambda entries: status_of(f"{name}-ttl", entries) == "passing")
    dc1.until(f"{CONNECT}/{name}", lambda entries: status_of(f"{name}-ttl", entries) == "critical")


def test_a_tcp_check_follows_the_door(dc1: Api, register: Register, name: str) -> None:
    path = f"{CONNECT}/{name}"
    with socket.create_server(("127.0.0.1", 0)) as door:
        register(dc1, proxy(name, Check=tcp(f"{name}-tcp", *door.getsockname())))
        dc1.until(path, lambda entries: status_of(f"{name}-tcp", entries) == "passing")
    dc1.until(path, lambda entries: status_of(f"{name}-tcp", entries) == "critical")


def test_a_service_that_comes_and_goes_wakes_its_watcher(dc1: Api, register: Register, name: str) -> None:
    nobody = dc1.get(f"{CONNECT}/{name}")
    assert nobody.json == []
    pending = dc1.hold(f"{CONNECT}/{name}?index={nobody.index}&wait=30s")
    register(dc1, proxy(name))
    assert pending.result().seconds < 5
    somebody = dc1.until(f"{CONNECT}/{name}", len)
    pending = dc1.hold(f"{CONNECT}/{name}?index={somebody.index}&wait=30s")
    dc1.put(f"/v1/agent/service/deregister/{name}-proxy")
    answer = pending.result()
    assert answer.json == []
    assert answer.seconds < 5


def test_an_unchanged_answer_is_waited_for_until_the_time_is_up(
    dc1: Api, register: Register, name: str
) -> None:
    register(dc1, proxy(name))
    known = dc1.until(f"{CONNECT}/{name}", len)
    answer = dc1.get(f"{CONNECT}/{name}?index={known.index}&wait=1s")
    assert ids(answer.json) == [f"{name}-proxy"]
    assert answer.index == known.index
    assert 0.9 <= answer.seconds < 5


def test_the_other_datacenter_can_be_watched(federation: Federation, register: Register, name: str) -> None:
    path = f"{CONNECT}/{name}?dc=dc2&passing"
    register(federation.dc2, proxy(name, Check=ttl(f"{name}-ttl")))
    known = federation.dc1.until(path, len)
    assert known.json[0]["Node"]["Datacenter"] == "dc2"
    assert federation.dc1.get(f"{CONNECT}/{name}").json == []
    pending = federation.dc1.hold(f"{path}&index={known.index}&wait=30s")
    federation.dc2.put(f"/v1/agent/check/fail/{name}-ttl")
    answer = pending.result()
    assert answer.json == []
    assert answer.seconds < 5


WAN = [
    pytest.param(
        {"Address": "127.0.0.22", "TaggedAddresses": wan("127.0.0.122", 31010)},
        ("127.0.0.22", 31010),  # the trap: the LAN address with the WAN port
        id="half-translated",
    ),
    pytest.param({"TaggedAddresses": wan("127.0.0.122", 31011)}, ("127.0.0.122", 31011), id="wan-only"),
    pytest.param({}, ("", 21991), id="nothing"),
    pytest.param(
        {"Address": "db.internal", "TaggedAddresses": wan("db.public", 31013)},
        ("db.public", 31013),
        id="host-names",
    ),
    pytest.param(
        {
            "Address": "127.0.0.22",
            "TaggedAddresses": wan("127.0.0.122", 31014)
            | {"wan_ipv4": {"Address": "127.0.0.122", "Port": 41014}},
        },
        ("127.0.0.122", 31014),
        id="both-tags",
    ),
    pytest.param({"Address": "127.0.0.22"}, ("127.0.0.22", 21991), id="lan-only"),
]


@pytest.mark.parametrize(("addresses", "expected"), WAN)
def test_addresses_are_translated_for_the_other_datacenter_only(
    federation: Federation, register: Register, name: str, addresses: Any, expected: tuple[str, int]
) -> None:
    register(federation.dc2, proxy(name, **addresses))
    local = federation.dc2.until(f"{CONNECT}/{name}", len).json[0]["Service"]
    assert (local["Address"], local["Port"]) == (addresses.get("Address", ""), 21991)
    for path in (f"{CONNECT}/{name}", f"/v1/health/service/{name}-proxy"):
        seen = federation.dc1.get(f"{path}?dc=dc2").json[0]["Service"]
        assert (seen["Address"], seen["Port"]) == expected
        assert seen.get("TaggedAddresses") == local.get("TaggedAddresses")
    for path in (f"/v1/catalog/connect/{name}", f"/v1/catalog/service/{name}-proxy"):
        flat = federation.dc1.get(f"{path}?dc=dc2").json[0]
        assert (flat["ServiceAddress"], flat["ServicePort"]) == expected


def test_a_sidecars_parent_is_no_endpoint_of_the_mesh(dc1: Api, register: Register, name: str) -> None:
    register(dc1, sidecar(name))
    assert ids(dc1.until(f"{CONNECT}/{name}", len).json) == [f"{name}-sidecar-proxy"]
