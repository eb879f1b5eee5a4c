"""The catalog, the agent's word about itself, and how index blocking behaves at its edges."""

from __future__ import annotations

from tests.contract.client import Api
from tests.contract.conftest import Register
from tests.contract.federation import Federation
from tests.contract.services import proxy


def test_each_datacenter_lists_itself_first(federation: Federation) -> None:
    assert federation.dc1.get("/v1/catalog/datacenters").json == ["dc1", "dc2"]
    assert sorted(federation.dc2.get("/v1/catalog/datacenters").json) == ["dc1", "dc2"]


def test_services_are_listed_with_their_tags(federation: Federation, register: Register, name: str) -> None:
    register(federation.dc2, proxy(name, Tags=["a", "b"]))
    federation.dc2.until(f"/v1/health/connect/{name}", len)
    for path, api in (
        ("/v1/catalog/services", federation.dc2),
        ("/v1/catalog/services?dc=dc2", federation.dc1),
    ):
        services = api.get(path).json
        assert sorted(services[f"{name}-proxy"]) == ["a", "b"]
        assert services["consul"] == []
    assert f"{name}-proxy" not in federation.dc1.get("/v1/catalog/services").json


def test_a_flat_entry_has_every_field_a_client_reads(dc1: Api, register: Register, name: str) -> None:
    register(dc1, proxy(name, Address="127.0.0.9"))
    dc1.until(f"/v1/health/connect/{name}", len)
    for path in (f"/v1/catalog/connect/{name}", f"/v1/catalog/service/{name}-proxy"):
        answer = dc1.get(path)
        (entry,) = answer.json
        assert answer.index >= 1
        assert {"ID", "Node", "Address", "TaggedAddresses", "NodeMeta", "ServiceTags", "ServiceMeta"} <= set(
            entry
        )
        assert entry["Datacenter"] == "dc1"
        assert entry["ServiceKind"] == "connect-proxy"
        assert entry["ServiceID"] == entry["ServiceName"] == f"{name}-proxy"
        assert (entry["ServiceAddress"], entry["ServicePort"]) == ("127.0.0.9", 21991)
        assert entry["ServiceProxy"]["DestinationServiceName"] == name
        assert entry["ServiceTaggedAddresses"]["lan_ipv4"] == {"Address": "127.0.0.9", "Port": 21991}
        assert entry["ServiceWeights"] == {"Passing": 1, "Warning": 1}


def test_a_node_knows_its_services(federation: Federation, register: Register, name: str) -> None:
    register(federation.dc2, proxy(name))
    federation.dc2.until(f"/v1/health/connect/{name}", len)
    (node,) = federation.dc1.get("/v1/catalog/nodes?dc=dc2").json
    assert node["Datacenter"] == "dc2"
    found = federation.dc1.get(f"/v1/catalog/node/{node['Node']}?dc=dc2").json
    assert found["Node"]["ID"] == node["ID"]
    assert found["Services"][f"{name}-proxy"]["Proxy"]["DestinationServiceName"] == name


def test_an_agent_says_who_it_is(federation: Federation) -> None:
    for api in federation:
        body = api.get("/v1/agent/self").json
        config = body["Config"]
        assert (config["Datacenter"], config["PrimaryDatacenter"]) == (api.name, "dc1")
        assert config["Server"] is True
        assert {"NodeName", "NodeID", "Revision", "Version"} <= set(config)
        assert {"DebugConfig", "Coord", "Member", "Stats", "Meta"} <= set(body)
        (node,) = api.get("/v1/catalog/nodes").json
        assert (config["NodeName"], config["NodeID"]) == (node["Node"], node["ID"])


def test_somebody_leads(federation: Federation) -> None:
    for api in federation:
        host, _, port = api.get("/v1/status/leader").json.rpartition(":")
        assert host
        assert port.isdigit()
        assert len(api.get("/v1/status/peers").json) == 1
        assert len(api.get("/v1/agent/members").json) == 1


def test_an_index_ahead_of_the_present_one_waits_in_full_and_comes_back_lower(dc1: Api, name: str) -> None:
    paths = [
        f"/v1/health/connect/{name}",
        "/v1/agent/connect/ca/roots",
        f"/v1/connect/intentions/match?by=destination&name={name}",
    ]
    held = []
    for path in paths:
        separator = "&" if "?" in path else "?"
        held.append(dc1.hold(f"{path}{separator}index=1000000&wait=1s"))
    for pending in held:
        answer = pending.result()
        assert answer.status == 200
        assert 1 <= answer.index < 1000000
        assert 0.9 <= answer.seconds < 5


def test_an_index_of_zero_does_not_wait(dc1: Api, name: str) -> None:
    for path in (
        f"/v1/health/connect/{name}?index=0&wait=10s",
        f"/v1/health/connect/{name}?wait=10s",
        "/v1/agent/connect/ca/roots?index=0&wait=10s",
        f"/v1/agent/connect/ca/leaf/{name}?index=0&wait=10s",
    ):
        answer = dc1.get(path)
        assert answer.status == 200
        assert answer.index >= 1
        assert answer.seconds < 5
