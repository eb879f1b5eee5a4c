"""The contestants: client side A and server side B of one mesh hop, all with the same leaves and TLS 1.3.

Each pair listens in plain text on its own port, speaks mutual TLS between its halves, and reaches the same
origin. Resumption is off on every side, so each new connection is a full handshake.
"""

from __future__ import annotations

import compileall
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.rig import (
    API_PORT,
    NODES,
    ORIGIN_PORT,
    BenchFailed,
    api,
    ask,
    ask_text,
    identity,
    must_be_free,
    process,
    wait_for_port,
)

CLIENT, SERVER = NODES["dc1"], NODES["dc2"]
MANY = "many"  # a service of thousands of instances
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / room for room in ("agent", "certs", "upstreams")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running pair: where the load goes, the server half's own port, and the processes that do the work."""

    name: str
    address: str
    port: int
    public: int | None = None
    server: str = SERVER
    pids: tuple[int, ...] = ()  # of each half's first process
    ready_seconds: float = 0
    judges_requests: bool = False  # then it is measured by requests and connections, not by bulk


Starter = Callable[[Path], contextlib.AbstractContextManager[Pair]]


@contextlib.contextmanager
def direct(directory: Path) -> Iterator[Pair]:
    """No proxy at all."""
    yield Pair(name="direct", address=SERVER, port=ORIGIN_PORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """A pair of ours: under which name, on which ports, and what is said to each half beside the usual."""

    name: str
    service: str
    public: int
    upstream: int
    admin: int
    config: Mapping[str, object] = field(default_factory=dict)  # the registration's Proxy.Config
    flags: tuple[str, ...] = ()
    module: str = "agent"  # what Python runs
    level: str = "warn"  # of the log


AS_THE_UNIT = ("env", "PYTHONMALLOC=malloc")  # systemd/sidecar@.service, for the reason said there

L4 = Sidecars(name="sidecar", service="db", public=21000, upstream=9101, admin=19000)


@contextlib.contextmanager
def sidecars(directory: Path, which: Sidecars, *more: str) -> Iterator[Pair]:
    """Two sidecars of this project beside two embedded datacenters; `more` is said to the client half."""
    register(which)
    for path in PACKAGES:  # as pip does when it installs: else each start compiles, and keeps what that took
        compileall.compile_dir(path, quiet=2)
    common = [*AS_THE_UNIT, sys.executable, "-m", which.module, "run", "-log-level", which.level]
    common += which.flags
    server = [*common, "-sidecar-for", which.service, "-http-addr", f"{SERVER}:{API_PORT}",
              "-admin-bind", f"{SERVER}:{which.admin}"]  # fmt: skip
    upstream = f"{which.service}@dc2:{CLIENT}:{which.upstream}"
    client = [*common, "-service", "web", "-upstream", upstream, "-http-addr", f"{CLIENT}:{API_PORT}",
              "-admin-bind", f"{CLIENT}:{which.admin}", *more]  # fmt: skip
    with two(
        directory, which.name, client=client, server=server, upstream=which.upstream, public=which.public
    ) as pair:
        yield pair


def register(which: Sidecars) -> None:
    """The origin as a service of dc2 with a sidecar."""
    checks = [{"Name": "up", "TTL": "24h", "Status": "passing"}]
    proxy = {
        "LocalServiceAddress": SERVER, "LocalServicePort": ORIGIN_PORT, "Config": dict(which.config),
    }  # fmt: skip
    body = {
        "Name": which.service, "ID": which.service, "Address": SERVER, "Port": ORIGIN_PORT,
        "Connect": {"SidecarService": {"Port": which.public, "Checks": checks, "Proxy": proxy}},
    }  # fmt: skip
    ask("PUT", f"{api('dc2')}/v1/agent/service/register", body)


@contextlib.contextmanager
def ours(directory: Path) -> Iterator[Pair]:
    """As it comes. `many` is for the storm: an upstream that nobody calls and nobody serves until then."""
    with sidecars(directory, L4, "-upstream", f"{MANY}@dc2:{CLIENT}:9111") as pair:
        yield pair


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
    with two(
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
            f"error_log {directory}/nginx-{name}.err; events {{ worker_connections 16384; }}\n"
            f"stream {{ server {{ {body} }} }}\n"
        )
        commands.append([binary, "-p", str(directory), "-c", str(path)])
    with two(
        directory, "nginx", client=commands[0], server=commands[1], upstream=upstream, public=public
    ) as pair:
        yield pair


@contextlib.contextmanager
def two(
    directory: Path, name: str, *, client: list[str], server: list[str], upstream: int, public: int
) -> Iterator[Pair]:
    for address, port in ((SERVER, public), (CLIENT, upstream)):
        must_be_free(address, port)  # HAProxy would share it with the one of an earlier run
    log = {half: directory / f"{name}-{half}.log" for half in ("client", "server")}
    with process(server, log["server"]) as b, process(client, log["client"]) as a:
        took = wait_for_port(SERVER, public, b, log["server"])
        took = max(took, wait_for_port(CLIENT, upstream, a, log["client"]))
        yield Pair(
            name=name,
            address=CLIENT,
            port=upstream,
            public=public,
            pids=(a.pid, b.pid),
            ready_seconds=took + _until_it_answers(upstream),
        )


def _until_it_answers(port: int) -> float:
    """Seconds until a request came back: to listen is not yet to know where to."""
    started = time.perf_counter()
    for _ in range(200):
        with contextlib.suppress(OSError):
            ask_text(f"http://{CLIENT}:{port}/")
            return time.perf_counter() - started
        time.sleep(0.05)
    raise BenchFailed(f"nothing comes back through port {port}")
