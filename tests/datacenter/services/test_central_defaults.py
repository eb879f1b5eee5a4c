"""Central configuration: who wins, key by key."""

from __future__ import annotations

from typing import Any

from datacenter.services.central_defaults import CONFIG_ENTRIES, content_hash, merged
from datacenter.services.registration import expand
from datacenter.state.store import Store


def service(**proxy: Any) -> dict[str, Any]:
    definition = {"Kind": "connect-proxy", "Name": "p", "Port": 1}
    return expand({**definition, "Proxy": {"DestinationServiceName": "web", **proxy}}, {})[0].service


def store(**entries: dict[str, Any]) -> Store:
    """`proxy_defaults`, or service-defaults under a service's name."""
    made = Store()
    for name, entry in entries.items():
        key = "proxy-defaults/global" if name == "proxy_defaults" else f"service-defaults/{name}"
        made.table(CONFIG_ENTRIES).put(key, entry)
    return made


def upstream(name: str = "db", **more: Any) -> dict[str, Any]:
    return {"DestinationName": name, "LocalBindPort": 1, **more}


def test_nothing_central_changes_nothing_that_is_seen() -> None:
    plain = merged(Store(), service(Config={"a": 1}))
    assert (plain["Proxy"]["Config"], plain["Proxy"]["MeshGateway"]) == ({"a": 1}, {"Mode": ""})


def test_a_stored_config_that_is_no_object_counts_for_nothing() -> None:
    odd = {**service(Upstreams=[upstream()])}
    odd["Proxy"] = {**odd["Proxy"], "Config": "x"}
    assert merged(store(proxy_defaults={"Config": {"a": 1}}), odd)["Proxy"]["Config"] == {"a": 1}


def test_only_proxies_are_merged() -> None:
    web = expand({"Name": "web"}, {})[0].service
    assert merged(store(proxy_defaults={"Config": {"a": 1}}), web) == web


def test_local_keys_win_and_never_deeper() -> None:
    defaults = {
        "Config": {"a": {"x": 1, "y": 1}, "b": 1, "protocol": "http"},
        "MeshGateway": {"Mode": "local"},
    }
    proxy = merged(store(proxy_defaults=defaults), service(Config={"a": {"x": 2}}))["Proxy"]
    assert proxy["Config"] == {"a": {"x": 2}, "b": 1, "protocol": "http"}
    assert proxy["MeshGateway"] == {"Mode": "local"}


def test_a_service_s_defaults_are_nearer_than_the_proxies() -> None:
    entries = store(
        proxy_defaults={
            "Config": {"protocol": "http"},
            "MeshGateway": {"Mode": "local"},
            "Expose": {"Checks": True},
        },
        web={"Protocol": "grpc", "MeshGateway": {"Mode": "remote"}},
    )
    proxy = merged(entries, service())["Proxy"]
    assert (proxy["Config"]["protocol"], proxy["MeshGateway"]["Mode"]) == ("grpc", "remote")
    assert proxy["Expose"] == {"Checks": True}


def test_null_in_an_entry_is_as_good_as_absent() -> None:
    entries = store(proxy_defaults={"Config": None, "MeshGateway": None}, web={"UpstreamConfig": None})
    assert merged(entries, service(Upstreams=[upstream()]))["Proxy"]["Config"] == {}


def test_upstreams_have_the_protocol_of_their_destination() -> None:
    entries = store(proxy_defaults={"Config": {"protocol": "http"}}, db={"Protocol": "http2"})
    proxy = merged(
        entries,
        service(
            Upstreams=[
                upstream("db"),
                upstream("cache", LocalBindPort=2),
                upstream("own", LocalBindPort=3, Config={"protocol": "tcp"}),
            ]
        ),
    )["Proxy"]
    assert [each["Config"] for each in proxy["Upstreams"]] == [
        {"protocol": "http2"},
        {"protocol": "http"},
        {"protocol": "tcp"},
    ]


def test_a_query_s_upstream_has_no_central_configuration() -> None:
    query = upstream(DestinationType="prepared_query")
    entries = store(proxy_defaults={"Config": {"protocol": "http"}, "MeshGateway": {"Mode": "local"}})
    proxy = merged(entries, service(Upstreams=[query], MeshGateway={"Mode": "local"}))["Proxy"]
    assert proxy["Upstreams"] == [query]


def test_an_upstream_s_mode_is_the_nearest_one() -> None:
    own = {
        "UpstreamConfig": {
            "Defaults": {
                "MeshGateway": {"Mode": "local"},
                "ConnectTimeoutMs": 1,
                "Limits": {"MaxConnections": 1},
            },
            "Overrides": [{"Name": "db", "MeshGateway": {"Mode": "none"}, "ConnectTimeoutMs": 2}],
        }
    }
    upstreams = [upstream("db"), upstream("cache", LocalBindPort=2)]
    plain = merged(store(web=own), service(Upstreams=upstreams))["Proxy"]["Upstreams"]
    assert [each["MeshGateway"]["Mode"] for each in plain] == ["none", "local"]
    assert [each["Config"]["connect_timeout_ms"] for each in plain] == [2, 1]
    assert plain[0]["Config"]["limits"] == {"MaxConnections": 1}
    mode = {"MeshGateway": {"Mode": "remote"}}
    by_proxy = merged(store(web=own), service(Upstreams=upstreams, **mode))["Proxy"]["Upstreams"]
    assert [each["MeshGateway"]["Mode"] for each in by_proxy] == ["remote", "remote"]


def test_the_hash_is_of_the_content() -> None:
    first = content_hash({"a": 1, "b": [1, 2]})
    assert first == content_hash({"b": [1, 2], "a": 1})
    assert first != content_hash({"a": 1, "b": [2, 1]})
    assert len(first) == 16
