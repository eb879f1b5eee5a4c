"""What a registration's keys do here and elsewhere, and that every key that is read has its line."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cli.findings import State
from agent.config.registration import parse_registration
from agent.config.upstream_config import KEYS
from agent.migration.effects import PROXY_CONFIG, UPSTREAM_CONFIG, always, of_registration

WAITS = "used here, as by Envoy; it waits 10 s, whatever is written"
NOT_REQUESTS = "no effect here, where connections are limited and not requests"


def told(upstream: dict[str, Any] | None = None, config: object = None, **proxy: Any) -> list[str]:
    """The lines for a registration with one upstream."""
    served = {"DestinationName": "db", "LocalBindPort": 9191, "Config": upstream}
    fields = {"DestinationServiceName": "web", "LocalServicePort": 8080, "Upstreams": [served], **proxy}
    answer = {"ID": "x", "Kind": "connect-proxy", "Port": 21000, "Proxy": {**fields, "Config": config}}
    return [str(finding) for finding in of_registration(answer, parse_registration(answer))]


def test_a_plain_registration_differs_in_nothing() -> None:
    assert told() == []
    assert told(config={"connect_sidecar_tunnel": True, "identity_header": True}) == []
    empty = {"limits": {"MaxConnections": None}, "passive_health_check": {}}  # as Consul merges them
    assert told(empty, {"envoy_listener_tracing_json": ""}, AccessLogs={"Enabled": False}) == []
    assert told({"protocol": "tcp"}, {"protocol": "tcp", "local_connect_timeout_ms": 500}) == []


def test_each_key_has_a_line() -> None:
    limits = {"max_connections": 5, "max_concurrent_requests": 7}
    config = {"bind_port": 21001, "envoy_prometheus_bind_addr": "0.0.0.0:9102", "colour": "red"}
    upstream = {"connect_timeout_ms": 1000, "limits": limits, "warm": 2, "envoy_cluster_json": "{}"}
    place = "Upstreams[0] (db).Config"
    own, envoy = "beside Consul's own proxy", "beside Envoy"
    assert told(upstream, config, EnvoyExtensions=[{"Name": "x"}], Novel=1) == [
        f"warn  Proxy.EnvoyExtensions, {envoy}: no effect here: it configures Envoy itself",
        "warn  Proxy.Novel: no effect here",
        f"warn  Proxy.Config.bind_port, {own}: used here, as by Envoy; it listens at the registration's Port",
        "warn  Proxy.Config.colour: no effect here",
        f"warn  Proxy.Config.envoy_prometheus_bind_addr, {envoy}: no effect here: it configures Envoy itself",
        f"warn  {place}.connect_timeout_ms, {own}: {WAITS}",
        f"warn  {place}.envoy_cluster_json, {envoy}: no effect here: it configures Envoy itself",
        f"warn  {place}.limits.max_concurrent_requests, {envoy}: {NOT_REQUESTS}",
        f"warn  {place}.limits.max_connections, {own}: used here, as by Envoy; it ignores it",
    ]


def test_of_an_inner_map_the_keys_without_effect_are_told() -> None:
    lines = told({"passive_health_check": {"MaxFailures": 2, "MaxEjectionPercent": 40}})
    assert [line.partition("passive_health_check")[2] for line in lines] == [
        ", beside Consul's own proxy: used here, as by Envoy; it ignores it",
        ".MaxEjectionPercent, beside Envoy: no effect here, where the rest of it is used",
    ]


def test_a_table_says_no_effect_of_no_key_that_is_read() -> None:
    idle = {key for key, effect in UPSTREAM_CONFIG.items() if effect.says.startswith("no effect")}
    assert not idle & KEYS
    read = {"bind_address", "bind_port", "handshake_timeout_ms", "max_inbound_connections"}
    assert read == {key for key, effect in PROXY_CONFIG.items() if not effect.says.startswith("no effect")}


@pytest.mark.parametrize(
    ("protocol", "line"),
    [
        ("http", "warn  protocol, beside Consul's own proxy: http: requests are judged"),
        ("grpc", "warn  protocol, beside Envoy: grpc: bytes are passed on"),
    ],
)
def test_the_protocol(protocol: str, line: str) -> None:
    (found,) = told(config={"protocol": protocol})
    assert found.startswith(line)


def test_what_is_not_served_fails_and_the_rest_is_told() -> None:
    lines = told(
        {"connect_timeout_ms": "soon"},
        Mode="transparent",
        Expose={"Checks": True},
        MeshGateway={"Mode": "local"},
    )
    assert [line[:4] for line in lines] == ["warn", "warn", "fail", "fail", "warn"]
    assert "mesh gateways are used (local), as by Envoy" in lines[1]
    assert "transparent_proxy" in lines[2]
    assert "give each upstream a bind" in lines[2]
    assert "exposed_paths" in lines[3]
    assert "wrong_value" in lines[4]


def test_fields_of_service_and_upstream_that_are_not_known_are_told() -> None:
    upstream = {"DestinationName": "db", "LocalBindPort": 9191, "DestinationHost": "x"}
    proxy = {"DestinationServiceName": "web", "LocalServicePort": 1, "Upstreams": [upstream]}
    answer = {"ID": "x", "Kind": "connect-proxy", "Proxy": proxy, "SocketPath": "/run/web"}
    lines = [str(finding) for finding in of_registration(answer, parse_registration(answer))]
    assert lines == [
        "warn  Service: unknown_keys: not honoured here: SocketPath",
        "warn  Upstreams[0]: unknown_keys: not honoured here: DestinationHost",
    ]


def test_what_always_differs() -> None:
    found = list(always("127.0.0.1:19000"))
    assert {finding.state for finding in found} == {State.WARN}
    assert [finding.subject.split(",")[0] for finding in found] == [
        "admin endpoint",
        "resumed TLS sessions",
        "changes while running",
        "discovery chains",
    ]


def test_an_exposed_path_is_told_beside_both() -> None:
    paths = [{"Path": "/health", "ListenerPort": 21500, "LocalPathPort": 8080}]
    (line,) = told(Expose={"Paths": paths})
    assert line == (
        "warn  exposed path /health at 0.0.0.0:21500: GET and HEAD from `expose_from`; "
        "Envoy passes any method on, the other one none"
    )
