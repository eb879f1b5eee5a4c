"""What every pair of the bench stands between: an origin, and two datacenters that issue the leaves of all.

The server's leaf comes from the secondary, so each full handshake carries the intermediate as it would across
datacenters. Everything listens on loopback addresses of the bench's own.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = {"dc1": "127.0.66.11", "dc2": "127.0.66.21"}
API_PORT = 8500
ORIGIN_PORT = 8080
SAMPLE = bytes(
    number * number % 251 for number in range(1 << 20)
)  # what a sample of the bytes is held against
EXPECTED_PEER = {"web": "dc1", "db": "dc2"}


class BenchFailed(Exception):
    """The bench cannot give a figure that means anything; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Files with one service's leaf, key and the trust bundle, for the proxies which want files."""

    service: str
    uri: str
    chain: Path
    key: Path
    bundle: Path

    @property
    def combined(self) -> Path:
        """Chain and key in one file, as HAProxy wants them."""
        return self.chain.with_suffix(".combined.pem")


def prepare() -> None:
    """As many files as we may have; and told to end, end what was started first."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process for the length of the block; its output goes to `log`."""
    with log.open("ab") as sink:
        child = subprocess.Popen([str(word) for word in command], stdout=sink, stderr=sink, env=env)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def must_be_free(address: str, port: int) -> None:
    """Raises BenchFailed if somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        raise BenchFailed(f"{address}:{port} is in use: end what listens there, it may be of an earlier run")


def wait_for_port(
    address: str, port: int, child: subprocess.Popen[bytes], log: Path, seconds: float = 20
) -> float:
    """Seconds until something listens; raises BenchFailed when the child ends or time is up."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        time.sleep(0.02)
        if child.poll() is not None:
            raise BenchFailed(f"ended with {child.returncode} before it listened: {_tail(log)}")
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0 and child.poll() is None:
                return time.perf_counter() - started
    raise BenchFailed(f"nothing listens on {address}:{port} after {seconds} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-600:]


def ask(method: str, url: str, body: object = None, seconds: float = 10) -> Any:
    """One JSON exchange; None when the body is empty."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url, data=data, method=method), timeout=seconds
    ) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def ask_text(url: str) -> str:
    """The body of one GET; raises OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


@contextlib.contextmanager
def origin(directory: Path) -> Iterator[None]:
    """nginx with one worker: `/` is 1 KiB, `/sample` the sample, `/zeros/N` N MiB; `/sink` takes anything.

    `/sink` is answered at once; what it throws away afterwards it would read for no more than 30 s, unless
    told. `/body` is read first: `mirror` does that, and a file that is not there costs the least.
    """
    nginx = shutil.which("nginx")
    if nginx is None:
        raise BenchFailed("nginx is the origin of the bench: apt-get install nginx-light")
    root = directory / "www"
    root.mkdir()
    root.chmod(0o755)
    directory.chmod(0o755)
    (root / "index.html").write_bytes(b"x" * 1024)
    (root / "sample").write_bytes(SAMPLE)
    (root / "zeros").mkdir()
    for size in (32, 48, 256, 384):
        with (root / "zeros" / str(size)).open("wb") as zeros:
            zeros.truncate(size << 20)
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.err;\n"
        "events { worker_connections 16384; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600; sendfile on;\n"
        f"  server {{ listen {NODES['dc2']}:{ORIGIN_PORT} backlog=4096; root {root};\n"
        "    location = /sink { client_max_body_size 0; lingering_time 10m; return 204; }\n"
        "    location = /body { client_max_body_size 0; client_body_buffer_size 128k; log_not_found off;\n"
        "      mirror /none; error_page 404 = @none; }\n"
        "    location = /none { internal; return 204; }\n"
        "    location @none { return 204; } } }\n"
    )
    log = directory / "nginx.log"
    with process([nginx, "-p", directory, "-c", config], log) as child:
        wait_for_port(NODES["dc2"], ORIGIN_PORT, child, log)
        yield


@contextlib.contextmanager
def datacenters(directory: Path) -> Iterator[None]:
    """A primary and a secondary, with web allowed to reach db."""
    with contextlib.ExitStack() as stack:
        for name, node in NODES.items():
            log = directory / f"{name}.log"
            joins = ["-primary-datacenter", "dc1", "-primary-addr", api("dc1")] if name != "dc1" else []
            command = [
                sys.executable,
                "-m",
                "agent",
                "datacenter",
                "-name",
                name,
                "-http-addr",
                f"{node}:{API_PORT}",
            ]
            child = stack.enter_context(process([*command, "-data-dir", directory / name, *joins], log))
            wait_for_port(node, API_PORT, child, log)
        ask("PUT", f"{api('dc1')}/v1/connect/intentions/exact?source=web&destination=db", {"Action": "allow"})
        _until_ready(f"{api('dc2')}/v1/agent/connect/ca/leaf/db")
        yield


def api(datacenter: str) -> str:
    """The URL of a datacenter's HTTP API."""
    return f"http://{NODES[datacenter]}:{API_PORT}"


def _until_ready(url: str) -> None:
    for _ in range(100):
        with contextlib.suppress(urllib.error.HTTPError):
            ask("GET", url)
            return
        time.sleep(0.1)
    raise BenchFailed(f"no answer from {url}")


def identity(service: str, directory: Path, url_of: Callable[[str], str] = api) -> Identity:
    """Write a service's leaf and the roots into files only we can read."""
    url = url_of(EXPECTED_PEER[service])
    leaf = ask("GET", f"{url}/v1/agent/connect/ca/leaf/{service}")
    roots = ask("GET", f"{url}/v1/agent/connect/ca/roots")
    made = Identity(
        service=service, uri=leaf["ServiceURI"], chain=directory / f"{service}.pem",
        key=directory / f"{service}.key", bundle=directory / f"{service}.roots.pem",
    )  # fmt: skip
    for path, text in (
        (made.chain, leaf["CertPEM"]),
        (made.key, leaf["PrivateKeyPEM"]),
        (made.combined, leaf["CertPEM"] + leaf["PrivateKeyPEM"]),
        (made.bundle, "\n".join(root["RootCert"] for root in roots["Roots"])),
    ):
        path.touch(mode=0o600)
        path.write_text(text)
    return made


def family(pid: int) -> list[int]:
    """A process and its children, by whichever of its threads they were started."""
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(int(child) for of in children for child in of)]


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise BenchFailed(f"process {pid} is gone")


def cpu_seconds(pid: int) -> float:
    """User and system time the threads of a process have used, in full precision."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
