"""Registration on the agent, and the registration's own blocking read, from which a sidecar lives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.conftest import Register
from tests.contract.services import proxy, sidecar, ttl
from tests.contract.versions import answers

SERVICE = "/v1/agent/service"
UPSTREAMS: list[dict[str, Any]] = [
    {"DestinationName": "db", "Datacenter": "dc2", "LocalBindPort": 9191},
    {
        "DestinationType": "prepared_query",
        "DestinationName": "db-near",
        "LocalBindAddress": "127.0.0.2",
        "LocalBindPort": 9192,
    },
    {"DestinationName": "cache", "LocalBindSocketPath": "/run/cache.sock", "LocalBindSocketMode": "0600"},
    {
        "DestinationType": "service",
        "DestinationName": "api",
        "LocalBindPort": 9193,
        "Config": {"connect_timeout_ms": 1234, "protocol": "http"},
        "MeshGateway": {"Mode": "local"},
    },
]


def test_a_sidecar_service_is_expanded_into_a_proxy(dc1: Api, register: Register, name: str) -> None:
    config = {"protocol": "tcp", "local_connect_timeout_ms": 250}
    proxied = {"Upstreams": UPSTREAMS, "Config": config}
    register(dc1, sidecar(name, proxied, ID=f"{name}-1", Tags=["v1"], Meta={"a": "b"}))
    answer = dc1.get(f"{SERVICE}/{name}-1-sidecar-proxy")
    body = answer.json
    assert answer.headers["x-consul-contenthash"] == body.pop("ContentHash")
    assert "x-consul-index" not in answer.headers
    assert body == {
        "Kind": "connect-proxy",
        "ID": f"{name}-1-sidecar-proxy",
        "Service": f"{name}-sidecar-proxy",
        "Tags": ["v1"],
        "Meta": {"a": "b"},
        "Port": 21990,
        "Address": "",
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
        "Proxy": {
            "DestinationServiceName": name,
            "DestinationServiceID": f"{name}-1",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
            "Config": config,
            "Upstreams": [{"DestinationType": "service", "MeshGateway": {}} | item for item in UPSTREAMS],
            "MeshGateway": {},
            "Expose": {},
        },
        "Datacenter": "dc1",
    }


def test_the_parent_is_a_service_like_any_other(dc1: Api, register: Register, name: str) -> None:
    register(dc1, sidecar(name))
    body = dc1.get(f"{SERVICE}/{name}").json
    assert body.pop("ContentHash")
    assert body == {
        "ID": name,
        "Service": name,
        "Tags": [],
        "Meta": {},
        "Port": 8080,
        "Address": "",
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
        "Datacenter": "dc1",
    }


def test_a_literal_address_becomes_two_tagged_ones(dc2: Api, register: Register, name: str) -> None:
    register(
        dc2, proxy(name, Address="127.0.0.22", TaggedAddresses={"wan": {"Address": "192.0.2.1", "Port": 5}})
    )
    body = dc2.get(f"{SERVICE}/{name}-proxy").json
    assert body["Datacenter"] == "dc2"
    assert body["TaggedAddresses"] == {
        "lan_ipv4": {"Address": "127.0.0.22", "Port": 21991},
        "wan": {"Address": "192.0.2.1", "Port": 5},
        "wan_ipv4": {"Address": "127.0.0.22", "Port": 21991},
    }


def test_a_sidecar_gets_a_port_and_keeps_it(dc1: Api, register: Register, name: str) -> None:
    service = {"name": name, "port": 1, "connect": {"sidecar_service": {}}}  # the other spelling of keys
    ports = []
    for _ in range(2):
        assert dc1.put(f"{SERVICE}/register", service).status == 200
        ports.append(dc1.get(f"{SERVICE}/{name}-sidecar-proxy").json["Port"])
    register(dc1, {"Name": name, **service})
    assert ports[0] == ports[1]
    assert 21000 <= ports[0] <= 21255


def test_a_sidecar_is_probed_where_it_listens_and_follows_its_parent(
    dc1: Api, register: Register, name: str
) -> None:
    register(dc1, sidecar(name, Check=ttl(f"{name}-ttl", "critical")))
    checks = dc1.get(f"/v1/agent/checks?filter=ServiceID==%22{name}-sidecar-proxy%22").json
    listening, alias = (checks[f"service:{name}-sidecar-proxy:{number}"] for number in (1, 2))
    assert (listening["Name"], listening["Type"]) == ("Connect Sidecar Listening", "tcp")
    assert (alias["Name"], alias["Type"]) == (f"Connect Sidecar Aliasing {name}", "alias")
    assert listening["Status"] == "critical"
    for check in (listening, alias):
        assert check["ServiceName"] == f"{name}-sidecar-proxy"

    def followed(entries: Any) -> bool:
        found = [
            check for entry in entries for check in entry["Checks"] if check["CheckID"] == alias["CheckID"]
        ]
        return bool(found) and found[0]["Status"] == "critical"

    dc1.until(f"/v1/health/connect/{name}", followed)


HOPELESS: dict[str, list[dict[str, Any]]] = {
    "upstream destination name cannot be empty": [{"LocalBindPort": 1}],
    "upstream local bind port or local socket path must be defined and nonzero": [{"DestinationName": "a"}],
    'unknown upstream destination type: "zip"': [
        {"DestinationName": "b", "DestinationType": "zip", "LocalBindPort": 7}
    ],
    (
        "upstreams cannot contain duplicates by local bind address and port or unix path; "
        '"127.0.0.1:7" is specified twice'
    ): [{"DestinationName": "b", "LocalBindPort": 7}, {"DestinationName": "c", "LocalBindPort": 7}],
}


@pytest.mark.parametrize("mistake", HOPELESS)
def test_an_upstream_of_a_sidecar_is_taken_as_it_is_before_consul_checks_it(
    dc1: Api, name: str, mistake: str
) -> None:
    hopeless = HOPELESS[mistake]
    answer = dc1.put(f"{SERVICE}/register", sidecar(name, {"Upstreams": hopeless}))
    told = (answer.status, answer.text)
    assert told in answers(dc1, 200, "", path=f"upstream of a sidecar: {mistake}")
    if answer.status == 200:
        kept = dc1.get(f"{SERVICE}/{name}-sidecar-proxy").json["Proxy"]["Upstreams"]
        for key in ("DestinationName", "LocalBindPort"):
            assert [item.get(key) or None for item in kept] == [item.get(key) for item in hopeless]
        dc1.put(f"{SERVICE}/deregister/{name}")


def test_the_agents_list_can_be_filtered(dc1: Api, register: Register, name: str) -> None:
    register(dc1, sidecar(name))
    services = dc1.get("/v1/agent/services").json
    assert {name, f"{name}-sidecar-proxy"} <= set(services)
    found = dc1.get("/v1/agent/services?filter=Kind==%22connect-proxy%22").json
    assert f"{name}-sidecar-proxy" in found
    assert name not in found
    assert "ContentHash" not in found[f"{name}-sidecar-proxy"]


def test_an_unchanged_registration_is_waited_for_until_the_time_is_up(
    dc1: Api, register: Register, name: str
) -> None:
    register(dc1, sidecar(name))
    first = dc1.get(f"{SERVICE}/{name}-sidecar-proxy")
    answer = dc1.get(f"{SERVICE}/{name}-sidecar-proxy?hash={first.json['ContentHash']}&wait=1s")
    assert 0.9 <= answer.seconds < 5
    assert answer.json == first.json


def test_an_identical_registration_keeps_the_hash(dc1: Api, register: Register, name: str) -> None:
    hashes = []
    for _ in range(2):
        register(dc1, sidecar(name, {"Upstreams": UPSTREAMS}))
        hashes.append(dc1.get(f"{SERVICE}/{name}-sidecar-proxy").json["ContentHash"])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("known", ["another hash", ""])
def test_another_hash_is_answered_at_once(dc1: Api, register: Register, name: str, known: str) -> None:
    register(dc1, sidecar(name))
    answer = dc1.get(f"{SERVICE}/{name}-sidecar-proxy?hash={known.replace(' ', '-')}&wait=10s")
    assert answer.status == 200
    assert answer.seconds < 5


def test_a_changed_registration_wakes_its_watcher(dc1: Api, register: Register, name: str) -> None:
    register(dc1, sidecar(name))
    known = dc1.get(f"{SERVICE}/{name}-sidecar-proxy").json["ContentHash"]
    pending = dc1.hold(f"{SERVICE}/{name}-sidecar-proxy?hash={known}&wait=30s")
    register(dc1, sidecar(name, {"Upstreams": UPSTREAMS[:1]}))
    answer = pending.result()
    assert [item["DestinationName"] for item in answer.json["Proxy"]["Upstreams"]] == ["db"]
    assert answer.json["ContentHash"] != known
    assert answer.seconds < 5


def test_a_deregistered_parent_takes_its_sidecar_along(dc1: Api, register: Register, name: str) -> None:
    register(dc1, sidecar(name))
    known = dc1.get(f"{SERVICE}/{name}-sidecar-proxy").json["ContentHash"]
    pending = dc1.hold(f"{SERVICE}/{name}-sidecar-proxy?hash={known}&wait=30s")
    assert dc1.put(f"{SERVICE}/deregister/{name}").status == 200
    answer = pending.result()
    assert (answer.status, answer.text) == (404, f"unknown service ID: {name}-sidecar-proxy")
    assert answer.seconds < 5


def test_maintenance_is_a_critical_check(dc1: Api, register: Register, name: str) -> None:
    register(dc1, proxy(name))
    path = f"{SERVICE}/maintenance/{name}-proxy"
    assert dc1.put(f"{path}?enable=true&reason=moving").status == 200
    check_id = f"_service_maintenance:{name}-proxy"
    check = dc1.get("/v1/agent/checks").json[check_id]
    assert (check["Status"], check["Notes"]) == ("critical", "moving")
    dc1.until(f"/v1/health/connect/{name}?passing", lambda entries: entries == [])
    assert dc1.put(f"{path}?enable=false").status == 200
    assert check_id not in dc1.get("/v1/agent/checks").json
    dc1.until(f"/v1/health/connect/{name}?passing", len)


@pytest.mark.parametrize(
    ("status", "code"),
    [("passing", 200), ("warning", 429), ("critical", 503)],
)
def test_the_agents_own_health_is_in_the_status_code(
    dc1: Api, register: Register, name: str, status: str, code: int
) -> None:
    register(dc1, proxy(name, Check=ttl(f"{name}-ttl", status)))
    answer = dc1.get(f"/v1/agent/health/service/id/{name}-proxy")
    assert answer.status == code
    assert answer.headers["x-consul-reason"] == status


def test_a_node_in_maintenance_has_a_check_of_its_own_that_ends_with_it(dc1: Api) -> None:
    path, checks = "/v1/agent/maintenance", "/v1/agent/checks"
    try:
        assert dc1.put(f"{path}?enable=true&reason=disk").status == 200
        check = dc1.get(checks).json["_node_maintenance"]
    finally:
        assert dc1.put(f"{path}?enable=false").status == 200
    assert check["ServiceID"] == ""
    assert (check["Name"], check["Status"], check["Notes"]) == ("Node Maintenance Mode", "critical", "disk")
    assert "_node_maintenance" not in dc1.get(checks).json
    refused = dc1.put(path)
    assert (refused.status, refused.text) == (400, "Missing value for enable")
    node = check["Node"]
    dc1.until(
        f"/v1/health/node/{node}", lambda found: "_node_maintenance" not in {c["CheckID"] for c in found}
    )
