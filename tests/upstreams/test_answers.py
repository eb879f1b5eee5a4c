"""Recorded health and query answers become endpoints with the identity each must prove."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from certs.spiffe import ServiceId, TrustDomain
from tests.recorded import body
from upstreams.answers import InvalidAnswer, parse_health, parse_query
from upstreams.endpoints import Checks, EndpointKey, ExpectedIdentity, HostPort, Status, UnusableReason


def entry(**changes: Any) -> dict[str, Any]:
    """One health entry; a change names its part, as in Service__Port=1."""
    answer: dict[str, Any] = {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc2", "TaggedAddresses": None},
        "Service": {
            "Kind": "connect-proxy",
            "ID": "db-proxy",
            "Service": "db-sidecar-proxy",
            "Address": "",
            "Port": 21000,
            "Proxy": {"DestinationServiceName": "db"},
        },
        "Checks": [],
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = answer
        for parent in parents:
            target = target[parent]
        target[key] = value
    return answer


def test_recorded_health_answer() -> None:
    endpoints = parse_health(body("wanmatrix-on-health-connect"), "db@dc2").endpoints
    assert [endpoint.service_id for endpoint in endpoints] == [f"db{x}-sidecar-proxy" for x in "ABCDE"]
    first = endpoints[0]
    assert first.expected == ExpectedIdentity(datacenter="dc2", service="db")
    assert (first.node, first.node_address, first.service_address, first.port) == (
        "b2",
        "127.0.0.22",
        "127.0.0.22",
        31010,
    )
    assert first.tagged["wan"] == HostPort("127.0.0.122", 31010)
    assert first.tagged["lan_ipv4"] == HostPort("127.0.0.22", 21010)
    assert first.node_tagged["wan"] == "127.0.0.22"
    assert (first.weight, first.status) == (1, Status.PASSING)
    assert first.key == EndpointKey(datacenter="dc2", node="b2", service_id="dbA-sidecar-proxy")
    assert str(first) == "dbA-sidecar-proxy on b2 in dc2"
    assert endpoints[2].tagged == {}


def test_recorded_critical_instance_keeps_its_status() -> None:
    (endpoint,) = parse_health(body("wan-off-health-connect")).endpoints
    assert endpoint.status is Status.CRITICAL


def test_recorded_query_failover_expects_the_other_datacenter() -> None:
    answer = parse_query(body("query-execute-failover"))
    assert {str(endpoint.expected) for endpoint in answer.endpoints} == {"/ns/default/dc/dc2/svc/db"}
    assert answer.source == "query for db, answered by dc2, 1 failovers"
    local = parse_query(body("query-execute-local"))
    assert {endpoint.datacenter for endpoint in local.endpoints} == {"dc1"}


@pytest.mark.parametrize("answer", [None, []])
def test_no_instances(answer: list[object] | None) -> None:
    assert parse_health(answer, "s").endpoints == ()


def test_recorded_empty_answers() -> None:
    assert parse_health(body("health-connect-empty")).endpoints == ()
    assert parse_query(body("query-execute-template-nomatch")).endpoints == ()
    assert parse_query({"Service": "db", "Nodes": None, "Datacenter": "dc1"}).endpoints == ()


def test_native_service_speaks_for_itself() -> None:
    native = entry(Service__Proxy=None, Service__Service="db", Service__Connect={"Native": True})
    assert parse_health([native]).endpoints[0].expected.service == "db"
    both = entry(Service__Connect={"Native": True})
    assert parse_health([both]).endpoints[0].expected.service == "db-sidecar-proxy"


def test_namespace_and_partition_of_the_instance_are_expected() -> None:
    (endpoint,) = parse_health([entry(Service__Namespace="team", Service__Partition="sales")]).endpoints
    assert (endpoint.expected.namespace, endpoint.expected.partition) == ("team", "sales")


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"Service__Proxy": {"DestinationServiceName": ""}}, UnusableReason.NO_DESTINATION),
        ({"Service__Proxy": {}}, UnusableReason.NO_DESTINATION),
        ({"Service__Proxy": None}, UnusableReason.NO_DESTINATION),
        ({"Service__Proxy": None, "Service__Connect": {}}, UnusableReason.NO_DESTINATION),
        ({"Node__Datacenter": ""}, UnusableReason.NO_DATACENTER),
        ({"Service__Port": 0, "Service__Ports": [{"Name": "http", "Port": 80}]}, UnusableReason.NAMED_PORTS),
    ],
)
def test_instances_nobody_could_identify_are_named_and_left_out(
    flaw: dict[str, Any], reason: UnusableReason
) -> None:
    answer = parse_health([entry(**flaw), entry()])
    assert len(answer.endpoints) == 1
    assert [(bad.instance, bad.reason) for bad in answer.unusable] == [("db-proxy on n1", reason)]


@pytest.mark.parametrize(
    ("statuses", "worst", "weight"),
    [
        ([], Status.PASSING, 10),
        (["passing", "passing"], Status.PASSING, 10),
        (["passing", "warning"], Status.WARNING, 2),
        (["warning", "critical", "passing"], Status.CRITICAL, 2),
        (["passing", "maintenance"], Status.CRITICAL, 2),
    ],
)
def test_worst_check_decides_status_and_weight(statuses: list[str], worst: Status, weight: int) -> None:
    checks = [{"CheckID": str(i), "Status": status} for i, status in enumerate(statuses)]
    answer = entry(Checks=checks, Service__Weights={"Passing": 10, "Warning": 2})
    (endpoint,) = parse_health([answer]).endpoints
    assert (endpoint.status, endpoint.weight) == (worst, weight)


@pytest.mark.parametrize(("weights", "weight"), [(None, 1), ({}, 1), ({"Passing": -3}, 0)])
def test_weights_may_be_missing(weights: dict[str, int] | None, weight: int) -> None:
    assert parse_health([entry(Service__Weights=weights)]).endpoints[0].weight == weight


def test_null_checks_and_addresses_are_tolerated() -> None:
    (endpoint,) = parse_health([entry(Checks=None, Service__TaggedAddresses=None)]).endpoints
    assert (endpoint.status, endpoint.tagged, endpoint.node_tagged) == (Status.PASSING, {}, {})


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        ([entry(Service__Port="x")], r"\$\[0\]\.Service\.Port"),
        ([entry(), {"Node": {}}], r"Service"),
        ([entry(Service__TaggedAddresses={"wan": {"Port": "9"}})], r"TaggedAddresses"),
    ],
)
def test_errors_name_the_path_of_the_field(answer: Any, path: str) -> None:
    with pytest.raises(InvalidAnswer, match=path):
        parse_health(answer)


@pytest.mark.parametrize(
    "item",
    [b'{"Node": {"Node": "\xff"}, "Service": {}}', b'{"Node": {}, "X": ' + b"[" * 1000 + b"]" * 1000 + b"}"],
    ids=["no text", "deep"],
)
def test_an_instance_that_is_hardly_json_is_named(item: bytes) -> None:
    with pytest.raises(InvalidAnswer, match=r"^health answer: .* - at `\$\[1\]`$"):
        parse_health([msgspec.Raw(b'{"Node": {}, "Service": {}}'), msgspec.Raw(item)])


def test_query_errors_name_the_path_of_the_field() -> None:
    with pytest.raises(InvalidAnswer, match=r"query answer: .*\$\.Nodes\[0\]\.Node\.Datacenter"):
        parse_query({"Nodes": [entry(Node__Datacenter=2)]})


def service(**changes: str) -> ServiceId:
    names = {"datacenter": "dc2", "service": "db", **changes}
    return ServiceId(trust_domain=TrustDomain("x.consul"), **names)


@pytest.mark.parametrize(
    ("peer", "matches"),
    [
        (service(), True),
        (service(service="DB"), True),  # as Consul's own proxy compares
        (service(service="web"), False),
        (service(datacenter="dc1"), False),
        (service(namespace="other"), False),
        (service(partition="other"), False),
    ],
)
def test_expected_identity(peer: ServiceId, matches: bool) -> None:
    assert ExpectedIdentity(datacenter="dc2", service="db").matches(peer) is matches


def test_a_gateway_speaks_for_itself() -> None:
    gateway = entry(Service__Kind="mesh-gateway", Service__Service="gateway", Service__Proxy=None)
    (endpoint,) = parse_health([gateway]).endpoints
    assert endpoint.expected == ExpectedIdentity(datacenter="dc2", service="gateway")


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [("10s", 10.0), ("1500ms", 1.5), ("2m", 120.0), ("1h", 3600.0), ("", None), ("0s", None), ("soon", None)],
)
def test_ttl_of_a_query_is_a_hint(ttl: str, seconds: float | None) -> None:
    assert parse_query({"Service": "db", "Nodes": [entry()], "DNS": {"TTL": ttl}}).ttl == seconds


def test_an_answer_without_a_ttl_has_none() -> None:
    assert parse_query({"Service": "db", "Nodes": [], "DNS": None}).ttl is None


def test_nearest_first_is_taken_from_the_question_and_lost_in_a_failover() -> None:
    answer: dict[str, Any] = {"Service": "db", "Nodes": [entry()], "Failovers": 0}
    assert parse_health([entry()], nearest_first=True).nearest_first
    assert parse_query(answer, nearest_first=True).nearest_first
    assert not parse_query(answer | {"Failovers": 1}, nearest_first=True).nearest_first


def test_brackets_round_an_ipv6_address_are_taken_off() -> None:
    answer = entry(
        Service__Address="[2001:db8::1]",
        Service__TaggedAddresses={"wan": {"Address": "[2001:db8::2]", "Port": 443}},
        Node__Address="[2001:db8::3]",
        Node__TaggedAddresses={"wan": "[2001:db8::4]", "lan": "[db]"},
    )
    (endpoint,) = parse_health([answer], "db").endpoints
    assert endpoint.service_address == "2001:db8::1"
    assert endpoint.tagged == {"wan": HostPort("2001:db8::2", 443)}
    assert endpoint.node_address == "2001:db8::3"
    assert endpoint.node_tagged == {"wan": "2001:db8::4", "lan": "[db]"}


@pytest.mark.parametrize(
    ("config", "offered"),
    [
        ({"connect_sidecar_tunnel": True, "protocol": "http"}, True),
        ({"connect_sidecar_tunnel": False}, False),
        ({"connect_sidecar_tunnel": "true"}, False),
        ({"connect_sidecar_tunnel": 1}, False),
        ({"protocol": "tcp"}, False),
        ({}, False),
        (None, False),
        ("connect_sidecar_tunnel", False),
        ([{"connect_sidecar_tunnel": True}], False),
    ],
)
def test_a_tunnel_is_offered_by_true_alone_and_no_other_config_is_read(config: object, offered: bool) -> None:
    answer = entry(Service__Proxy__Config=config)
    assert parse_health([answer]).endpoints[0].tunnels is offered
    assert parse_health([msgspec.Raw(msgspec.json.encode(answer))]).endpoints[0].tunnels is offered


def check(status: str, output: object = "Success", kind: object = "tcp") -> dict[str, object]:
    return {"Status": status, "Output": output, "Type": kind}


PROBED = check("passing")
SERF = check("passing", "Agent alive and reachable", "")


@pytest.mark.parametrize(
    ("checks", "found"),
    [
        ([PROBED, SERF], Checks.TOLD),
        ([check("critical", "dial tcp: connection refused"), SERF], Checks.TOLD),
        ([check("critical", ""), SERF], Checks.UNTOLD),
        ([check("critical", None), PROBED], Checks.UNTOLD),
        ([check("critical", "", "alias"), check("critical", "", "http")], Checks.UNTOLD),
        # a workload says critical without a note; a maintenance mode; a node that has failed
        ([check("critical", "", "ttl"), PROBED], Checks.TOLD),
        ([check("critical", "", "maintenance"), check("critical", "")], Checks.OTHERS),
        ([check("critical", ""), check("critical", "Agent not live or unreachable", "")], Checks.OTHERS),
        # a script may be silent, an agent may discard outputs, another program may report
        ([check("critical", "", "script")], Checks.OTHERS),
        ([check("passing", "")], Checks.OTHERS),
        ([check("warning", "")], Checks.OTHERS),
        ([SERF], Checks.OTHERS),
        ([], Checks.OTHERS),
    ],
)
def test_an_agent_that_has_lost_the_results_of_its_checks_is_told_from_one_that_has_them(
    checks: list[dict[str, object]], found: Checks
) -> None:
    (endpoint,) = parse_health([entry(Checks=checks)]).endpoints
    assert endpoint.checks is found


@pytest.mark.parametrize(
    "ports", [None, [], [{"Name": "http", "Port": 80, "Default": False}], {"http": 80}, 7]
)
def test_named_ports_beside_the_service_s_own_change_nothing(ports: object) -> None:
    assert parse_health([entry(Service__Ports=ports)]) == parse_health([entry()])
