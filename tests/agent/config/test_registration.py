"""Recorded registrations and every variation that matters."""

from __future__ import annotations

from typing import Any

import pytest

from agent.base.address import TcpAddress, UnixAddress
from agent.config.opaque_config import ProblemReason
from agent.config.registration import RegistrationReason, RegistrationRejected, parse_registration
from agent.policy.http_mode import HttpMode
from tests.recorded import body
from upstreams.spec import LocalBind, MeshGatewayMode


def answer(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A registration; keyword arguments of Proxy are given as Proxy__Key."""
    proxy: dict[str, Any] = {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web1",
        "LocalServiceAddress": "127.0.0.1",
        "LocalServicePort": 8080,
        "Config": config,
    }
    service: dict[str, Any] = {
        "Kind": "connect-proxy",
        "ID": "web1-proxy",
        "Port": 21000,
        "Address": "",
        "Proxy": proxy,
    }
    for key, value in changes.items():
        target, name = (proxy, key.removeprefix("Proxy__")) if key.startswith("Proxy__") else (service, key)
        target[name] = value
    return service


def test_recorded_sidecar_with_everything() -> None:
    registration = parse_registration(body("agent-service-sidecar"))
    assert registration.proxy_id == "web1-sidecar-proxy"
    assert (registration.service, registration.service_id, registration.datacenter) == ("web", "web1", "dc1")
    assert registration.public_bind == TcpAddress("127.0.0.11", 21501)
    assert registration.local_app == TcpAddress("127.0.0.1", 18080)
    assert (registration.handshake_timeout, registration.local_connect_timeout) == (2.0, 0.75)
    assert (registration.protocol, registration.mesh_gateway) == ("tcp", MeshGatewayMode.LOCAL)
    assert registration.content_hash == "840baff87a6d9c01"
    assert [str(upstream) for upstream in registration.upstreams] == [
        "db on 127.0.0.1:19001",
        "db@dc2 on 127.0.0.1:19002",
        "prepared_query:db-geo on 127.0.0.1:19003",
        "cache on unix:/run/cache.sock",
    ]
    reasons = [problem.reason for problem in registration.problems]
    assert reasons == [ProblemReason.UNKNOWN_KEYS] * 2
    assert [problem.where for problem in registration.problems] == ["Proxy.Config", "Upstreams[0].Config"]


def test_recorded_central_configuration_is_merged_into_upstreams() -> None:
    before = parse_registration(body("agent-service-sidecar"))
    after = parse_registration(body("agent-service-sidecar-merged"))
    assert [upstream.protocol for upstream in before.upstreams] == ["tcp"] * 4
    assert [upstream.protocol for upstream in after.upstreams] == ["tcp", "http", "tcp", "http"]
    assert before.content_hash != after.content_hash


def test_recorded_defaults() -> None:
    registration = parse_registration(body("agent-service-sidecar-defaults"))
    assert registration.public_bind == TcpAddress("0.0.0.0", 21000)
    assert registration.local_app == TcpAddress("127.0.0.1", 5)
    assert (registration.handshake_timeout, registration.local_connect_timeout) == (10.0, 1.0)
    assert registration.max_inbound_connections is None
    assert registration.problems == ()


def test_recorded_plain_sidecar_with_central_protocol() -> None:
    assert parse_registration(body("agent-service-db-sidecar-merged")).protocol == "http"


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({}, HttpMode.NEVER),
        ({"protocol": "tcp", "identity_header": True}, HttpMode.NEVER),
        ({"protocol": "http"}, HttpMode.IF_NEEDED),
        ({"protocol": "HTTP", "identity_header": False}, HttpMode.IF_NEEDED),
        ({"protocol": "http", "identity_header": True}, HttpMode.ALWAYS),
        ({"protocol": "http2"}, HttpMode.UNSUPPORTED),
        ({"protocol": "grpc", "identity_header": True}, HttpMode.UNSUPPORTED),
    ],
)
def test_how_much_of_http_is_looked_at(config: dict[str, Any], mode: HttpMode) -> None:
    assert parse_registration(answer(config)).http is mode


@pytest.mark.parametrize(("config", "let_through"), [({}, False), ({"underscores_in_headers": True}, True)])
def test_underscores_in_headers_are_let_through_where_the_definition_says_so(
    config: dict[str, Any], let_through: bool
) -> None:
    assert parse_registration(answer(config)).underscores_in_headers is let_through


@pytest.mark.parametrize(
    ("changes", "config", "bind"),
    [
        ({}, None, TcpAddress("0.0.0.0", 21000)),
        ({"Address": "10.0.0.1"}, {}, TcpAddress("10.0.0.1", 21000)),
        ({"Address": "10.0.0.1"}, {"bind_address": "127.0.0.2"}, TcpAddress("127.0.0.2", 21000)),
        ({"Address": "[2001:db8::1]"}, None, TcpAddress("2001:db8::1", 21000)),
        ({}, {"bind_address": "[::]"}, TcpAddress("::", 21000)),
        ({}, {"bind_port": 5000}, TcpAddress("0.0.0.0", 5000)),
        ({"Port": 0}, {"bind_port": 5000.0}, TcpAddress("0.0.0.0", 5000)),
        ({}, {"bind_port": 0}, TcpAddress("0.0.0.0", 21000)),
        ({"Port": 0}, {}, None),
    ],
)
def test_public_bind(changes: dict[str, Any], config: dict[str, Any] | None, bind: TcpAddress | None) -> None:
    assert parse_registration(answer(config, **changes)).public_bind == bind


@pytest.mark.parametrize(
    ("changes", "config", "app"),
    [
        ({}, None, TcpAddress("127.0.0.1", 8080)),
        ({"Proxy__LocalServiceAddress": ""}, None, TcpAddress("127.0.0.1", 8080)),
        ({"Proxy__LocalServiceAddress": "10.1.1.1"}, None, TcpAddress("10.1.1.1", 8080)),
        ({"Proxy__LocalServiceAddress": "[::1]"}, None, TcpAddress("::1", 8080)),
        ({}, {"local_service_address": "10.1.1.1:9"}, TcpAddress("127.0.0.1", 8080)),
        ({"Proxy__LocalServicePort": 0}, {"local_service_address": "10.1.1.1:9"}, TcpAddress("10.1.1.1", 9)),
        ({"Proxy__LocalServicePort": 0}, {"local_service_address": "[::1]:9"}, TcpAddress("::1", 9)),
        ({"Proxy__LocalServiceSocketPath": "/run/app"}, None, UnixAddress("/run/app")),
    ],
)
def test_local_app(changes: dict[str, Any], config: dict[str, Any] | None, app: object) -> None:
    registration = parse_registration(answer(config, **changes))
    assert registration.local_app == app
    overruled = config is not None and app == TcpAddress("127.0.0.1", 8080)
    assert [problem.reason.value for problem in registration.problems] == ["overruled"] * overruled


@pytest.mark.parametrize("address", ["", "10.1.1.1", "10.1.1.1:", "10.1.1.1:x", "10.1.1.1:0"])
def test_app_nobody_named_is_a_problem(address: str) -> None:
    registration = parse_registration(answer({"local_service_address": address}, Proxy__LocalServicePort=0))
    assert registration.local_app is None
    assert [problem.reason for problem in registration.problems] == [ProblemReason.NO_LOCAL_APP]


@pytest.mark.parametrize("port", [-1, 65536, 10**30])
def test_what_can_be_no_port_is_a_problem_and_none(port: int) -> None:
    registration = parse_registration(answer(Port=port, Proxy__LocalServicePort=port))
    assert (registration.public_bind, registration.local_app) == (None, None)
    told = [str(problem) for problem in registration.problems]
    assert told == [
        f"{where}: wrong_value: {port} is not a port; ignored" for where in ("Port", "Proxy.LocalServicePort")
    ]


def test_a_proxy_for_outbound_only_needs_no_app() -> None:
    registration = parse_registration(answer(Port=0, Proxy__LocalServicePort=0))
    assert (registration.public_bind, registration.local_app, registration.problems) == (None, None, ())


@pytest.mark.parametrize(("value", "limit"), [(100, 100), (0, None), (None, None), (7.0, 7)])
def test_inbound_limit(value: object, limit: int | None) -> None:
    registration = parse_registration(answer({"max_inbound_connections": value}))
    assert registration.max_inbound_connections == limit
    assert registration.problems == ()


def test_wrong_settings_are_problems_and_the_defaults_hold() -> None:
    config = {
        "handshake_timeout_ms": "x",
        "local_connect_timeout_ms": -1,
        "max_inbound_connections": "x",
        "bind_port": "x",
        "bind_address": 1,
        "protocol": 2,
    }
    registration = parse_registration(answer(config))
    assert registration.public_bind == TcpAddress("0.0.0.0", 21000)
    assert (registration.handshake_timeout, registration.local_connect_timeout) == (10.0, 1.0)
    assert registration.protocol == "tcp"
    assert {problem.where for problem in registration.problems} == {f"Proxy.Config.{key}" for key in config}


@pytest.mark.parametrize(
    "key", ["Proxy__Config", "Proxy__Upstreams", "Proxy__MeshGateway", "Proxy__Expose", "Tags", "Meta"]
)
@pytest.mark.parametrize("absent", [True, False])
def test_empty_keys_may_be_absent_or_null(key: str, absent: bool) -> None:
    service = answer(**{key: None})
    if absent:
        service.pop(key, None)
        service["Proxy"].pop(key.removeprefix("Proxy__"), None)
    assert parse_registration(service).upstreams == ()


def test_agents_before_1_9_do_not_tell_the_datacenter() -> None:
    assert parse_registration(answer()).datacenter is None


def test_transparent_proxy_and_exposed_checks_are_problems() -> None:
    registration = parse_registration(answer(Proxy__Mode="transparent", Proxy__Expose={"Checks": True}))
    assert [problem.reason for problem in registration.problems] == [
        ProblemReason.TRANSPARENT_PROXY,
        ProblemReason.EXPOSED_PATHS,
    ]


def test_unserved_upstreams_are_among_the_problems() -> None:
    registration = parse_registration(answer(Proxy__Upstreams=[{"DestinationName": "db"}]))
    assert [problem.reason for problem in registration.problems] == [ProblemReason.NO_BIND]


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ({}, RegistrationReason.MALFORMED),
        (answer(Port="x"), RegistrationReason.MALFORMED),
        (answer(Kind=""), RegistrationReason.NOT_A_PROXY),
        (answer(Kind="mesh-gateway"), RegistrationReason.NOT_A_PROXY),
        (answer(Proxy=None), RegistrationReason.NOT_A_PROXY),
        (answer(Proxy__DestinationServiceName=""), RegistrationReason.NO_DESTINATION),
    ],
)
def test_what_is_no_proxy_is_rejected(service: dict[str, Any], reason: RegistrationReason) -> None:
    with pytest.raises(RegistrationRejected) as caught:
        parse_registration(service)
    assert caught.value.reason is reason
    assert caught.value.detail in str(caught.value)


def test_rejection_names_the_path_of_the_field() -> None:
    with pytest.raises(RegistrationRejected, match=r"\$\.Proxy\.Upstreams\[0\]\.LocalBindPort"):
        parse_registration(answer(Proxy__Upstreams=[{"LocalBindPort": "x"}]))


def test_addresses_print() -> None:
    assert [str(TcpAddress("127.0.0.1", 1)), str(TcpAddress("::1", 1)), str(UnixAddress("/run/a"))] == [
        "127.0.0.1:1",
        "[::1]:1",
        "unix:/run/a",
    ]


@pytest.mark.parametrize(
    ("address", "bind"),
    [
        ("", "127.0.0.1"),
        ("10.0.0.7", "127.0.0.1"),
        ("web.example", "127.0.0.1"),
        ("::ffff:10.0.0.7", "127.0.0.1"),
        ("2001:db8::7", "::1"),
        ("[2001:db8::7]", "::1"),
        ("fe80::7%eth0", "::1"),
    ],
)
def test_an_upstream_without_an_address_binds_in_the_family_of_the_registration(
    address: str, bind: str
) -> None:
    upstreams = [
        {"DestinationName": "db", "LocalBindPort": 9191},
        {"DestinationName": "cache", "LocalBindPort": 9191, "LocalBindAddress": "127.0.0.9"},
    ]
    proxied = {"DestinationServiceName": "web", "LocalServicePort": 1, "Upstreams": upstreams}
    found = parse_registration({"ID": "x", "Kind": "connect-proxy", "Address": address, "Proxy": proxied})
    assert [upstream.bind for upstream in found.upstreams] == [
        LocalBind(bind, 9191),
        LocalBind("127.0.0.9", 9191),
    ]
