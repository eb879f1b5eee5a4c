"""What a registration says and is not honoured: each key by its name, once."""

from __future__ import annotations

from typing import Any

from agent.config.registration import parse_registration
from upstreams.answers import TUNNEL_KEY
from upstreams.spec import MeshGatewayMode

CALLED = "is called, as LocalServiceAddress and LocalServicePort say"


def test_what_is_not_honoured_is_named_once() -> None:
    answer = {
        "ID": "web-sidecar-proxy",
        "Kind": "connect-proxy",
        "Port": 21000,
        "Ports": [{"Name": "http", "Port": 8080}],
        "Proxy": {
            "DestinationServiceName": "web",
            "LocalServicePort": 8080,
            "Config": {
                "protocol": "http",
                "envoy_prometheus_bind_addr": "0.0.0.0:9102",
                "local_request_timeout_ms": 5,
                "local_service_address": "10.0.0.7:90",
            },
        },
    }
    assert [str(problem) for problem in parse_registration(answer).problems] == [
        f"Proxy.Config.local_service_address: overruled: 127.0.0.1:8080 {CALLED}",
        "Ports: multi_port: named ports are not served; callers reach port 21000 alone",
        "Proxy.Config: unknown_keys: not honoured here: local_request_timeout_ms",
        "Proxy.Config: unknown_keys: for Envoy alone, no effect here: envoy_prometheus_bind_addr",
    ]


def test_of_very_many_unknown_keys_a_few_are_named() -> None:
    config = {f"key{number:03}": 1 for number in range(25)}
    proxy = {"DestinationServiceName": "web", "LocalServicePort": 1, "Config": config}
    (problem,) = parse_registration({"ID": "x", "Kind": "connect-proxy", "Proxy": proxy}).problems
    assert "key019 and 5 more" in problem.detail


def proxy(**fields: Any) -> dict[str, Any]:
    return {"DestinationServiceName": "web", "LocalServicePort": 1, **fields}


def problems(fields: dict[str, Any], **service: Any) -> list[str]:
    answer = {"ID": "x", "Kind": "connect-proxy", "Proxy": proxy(**fields), **service}
    return [str(problem) for problem in parse_registration(answer).problems]


def test_fields_of_a_newer_consul_are_named_and_empty_ones_are_not() -> None:
    said = {
        "AccessLogs": {"Enabled": True},
        "EnvoyExtensions": [{"Name": "x"}],
        "MutualTLSMode": "permissive",
    }
    assert problems(said, SocketPath="/run/web", Meta={"a": "b"}, Locality={"Region": "x"}) == [
        "Service: unknown_keys: not honoured here: SocketPath",
        "Proxy: unknown_keys: not honoured here: AccessLogs, EnvoyExtensions, MutualTLSMode",
    ]
    empty = {"AccessLogs": {"Enabled": False}, "EnvoyExtensions": None, "MutualTLSMode": "strict"}
    assert problems({**empty, "TransparentProxy": {}, "Config": {"envoy_x": ""}}, SocketPath="") == []


HEALTH = "passive_health_check"
DB = {"DestinationName": "db", "LocalBindPort": 9000}


def test_the_same_keys_of_many_upstreams_are_named_once() -> None:
    config = {"envoy_cluster_json": "{}", "limits": {"max_concurrent_requests": 5, "MaxConnections": 3}}
    more = {HEALTH: {"MaxFailures": 2, "EnforcingConsecutive5xx": 50}, "envoy_cluster_json": "{}"}
    upstreams: list[dict[str, Any]] = [
        {"DestinationName": f"db{number}", "LocalBindPort": 9000 + number, "Config": config}
        for number in range(500)
    ]
    upstreams += [
        {"DestinationName": "cache", "LocalBindPort": 8999, "DestinationHost": "x", "Config": more},
        {"DestinationName": "*", "CentrallyConfigured": True, "Config": config},
    ]
    place = "Upstreams[0].Config: unknown_keys: not honoured here"
    envoys = "Upstreams[0].Config: unknown_keys: for Envoy alone, no effect here: envoy_cluster_json"
    assert problems({"Upstreams": upstreams}) == [
        f"{envoys}; the same holds for 500 more",
        f"{place}: limits.max_concurrent_requests; the same holds for 499 more",
        "Upstreams[500]: unknown_keys: not honoured here: DestinationHost",
        f"Upstreams[500].Config: unknown_keys: not honoured here: {HEALTH}.EnforcingConsecutive5xx",
    ]


def test_the_key_that_offers_tunnels_is_ours() -> None:
    assert problems({"Config": {TUNNEL_KEY: True}}) == []


def test_a_key_of_any_length_is_named_in_a_short_line() -> None:
    (problem,) = problems({"Config": {"k" * 10_000: 1}})
    assert len(problem) < 200


def test_keys_of_inner_maps_are_named_too() -> None:
    config = {
        "limits": {"max_connections": 3, "Maximum": 4},
        HEALTH: {"interval": "3s", "colour": "red"},
        "mesh_gateway": {"Mode": "local", "Modus": "x"},
        "failover": [{"datacenter": "dc2", "region": "y"}],
    }
    upstream = {**DB, "MeshGateway": {"Modes": "local"}, "Config": config}
    keys = f"failover[0].region, limits.Maximum, mesh_gateway.Modus, {HEALTH}.colour"
    said = {"Upstreams": [upstream], "MeshGateway": {"Mode": "none", "Peer": "x"}}
    assert problems(said) == [
        "Proxy.MeshGateway: unknown_keys: not honoured here: Peer",
        "Upstreams[0].MeshGateway: unknown_keys: not honoured here: Modes",
        f"Upstreams[0].Config: unknown_keys: not honoured here: {keys}",
    ]


def test_a_mesh_gateway_of_a_central_entry_is_a_map_and_counts() -> None:
    upstream = {**DB, "Config": {"mesh_gateway": {"Mode": "remote"}}}
    answer = {"ID": "x", "Kind": "connect-proxy", "Proxy": proxy(Upstreams=[upstream])}
    registration = parse_registration(answer)
    assert registration.problems == ()
    assert registration.upstreams[0].mesh_gateway is MeshGatewayMode.REMOTE


def test_an_upstream_that_names_a_port_is_not_led_to_another_one() -> None:
    upstream = {**DB, "DestinationPort": "metrics"}
    answer = {"ID": "x", "Kind": "connect-proxy", "Proxy": proxy(Upstreams=[upstream])}
    registration = parse_registration(answer)
    assert registration.upstreams == ()
    (problem,) = registration.problems
    assert str(problem) == (
        "Upstreams[0] (db): named_port: DestinationPort 'metrics': named ports are not reached here"
    )
