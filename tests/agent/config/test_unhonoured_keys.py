"""What a registration says and is not honoured: each key by its name, once."""

from __future__ import annotations

from typing import Any

from agent.config.registration import parse_registration
from upstreams.answers import TUNNEL_KEY

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
        "Proxy.Config: unknown_keys: not honoured here: envoy_prometheus_bind_addr, local_request_timeout_ms",
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


def test_the_same_keys_of_many_upstreams_are_named_once() -> None:
    config = {"envoy_cluster_json": "{}", "limits": {"max_concurrent_requests": 5, "MaxConnections": 3}}
    more = {HEALTH: {"MaxFailures": 2, "EnforcingConsecutive5xx": 50}, "envoy_cluster_json": "{}"}
    upstreams: list[dict[str, Any]] = [
        {"DestinationName": f"db{number}", "LocalBindPort": 9000 + number, "Config": config}
        for number in range(500)
    ]
    upstreams += [
        {"DestinationName": "cache", "LocalBindPort": 8999, "DestinationPort": "http", "Config": more},
        {"DestinationName": "*", "CentrallyConfigured": True, "Config": config},
    ]
    place = "Upstreams[0].Config: unknown_keys: not honoured here"
    assert problems({"Upstreams": upstreams}) == [
        f"{place}: envoy_cluster_json; the same holds for 500 more",
        f"{place}: limits.max_concurrent_requests; the same holds for 499 more",
        "Upstreams[500]: unknown_keys: not honoured here: DestinationPort",
        f"Upstreams[500].Config: unknown_keys: not honoured here: {HEALTH}.EnforcingConsecutive5xx",
    ]


def test_the_key_that_offers_tunnels_is_ours() -> None:
    assert problems({"Config": {TUNNEL_KEY: True}}) == []


def test_a_key_of_any_length_is_named_in_a_short_line() -> None:
    (problem,) = problems({"Config": {"k" * 10_000: 1}})
    assert len(problem) < 200
