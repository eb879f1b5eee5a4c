"""Two federated datacenters as processes on loopback: embedded ones, or a real Consul of two servers.

Everything is temporary: free ports, a data directory each, ended by process id. `dc1` is the primary.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from time import monotonic, sleep
from typing import Literal

from tests.contract.client import Api
from tests.contract.processes import Process, process

Kind = Literal["embedded", "consul"]
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Both datacenters; `jitter`: seconds within which a new root must have reached a watched leaf."""

    kind: Kind
    dc1: Api
    dc2: Api
    processes: tuple[Process, Process]
    jitter: float

    def __iter__(self) -> Iterator[Api]:
        return iter((self.dc1, self.dc2))


def consul_binary() -> str | None:
    """CONSUL_BIN, else the `consul` on PATH."""
    return os.environ.get("CONSUL_BIN") or shutil.which("consul")  # noqa: TID251  # the suite's only setting


def consul_version(binary: str) -> tuple[int, int]:
    """Major and minor: what the settings of an agent may say depends on them."""
    said = subprocess.run([binary, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    major, minor = said.removeprefix("Consul v").split(".")[:2]
    return int(major), int(minor)


def switched_off(binary: str, *ports: str) -> dict[str, int]:
    """These ports, and the one of gRPC over TLS which servers open on their own since 1.14."""
    since_1_14 = ("grpc_tls",) if consul_version(binary) >= (1, 14) else ()
    return dict.fromkeys((*ports, *since_1_14), -1)


@contextmanager
def running(
    kind: Kind,
    directory: Path,
    options: Mapping[str, Sequence[str]] | None = None,
    *,
    translate: bool = True,
    grpc: Sequence[int] = (),
) -> Iterator[Federation]:
    """A ready federation of this kind, with its files under `directory`.

    `options` are an embedded datacenter's own, by its name. `translate`: WAN addresses are answered. `grpc`:
    where the two agents of a real Consul serve Envoys; by default they serve none.
    """
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=24, thread_name_prefix="held-read"))
        commands, urls, jitter = (
            _embedded(directory, options or {}, translate=translate)
            if kind == "embedded"
            else _consul(directory, translate=translate, grpc=grpc)
        )
        first, second = (
            stack.enter_context(process(command, directory / f"dc{number}.log"))
            for number, command in enumerate(commands, start=1)
        )
        dc1, dc2 = (Api(f"dc{number}", url, threads) for number, url in enumerate(urls, start=1))
        federation = Federation(kind=kind, dc1=dc1, dc2=dc2, processes=(first, second), jitter=jitter)
        wait_until_ready(federation)
        yield federation


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for TCP and for UDP, and none that the kernel gives to somebody who dials."""
    while True:
        port = SystemRandom().randrange(10_000, 32_000)  # below net.ipv4.ip_local_port_range
        with closing(socket.socket()) as stream, closing(socket.socket(type=socket.SOCK_DGRAM)) as datagrams:
            try:
                stream.bind((host, port))
                datagrams.bind((host, port))
            except OSError:
                continue
            return port


def _embedded(
    directory: Path, options: Mapping[str, Sequence[str]], *, translate: bool
) -> tuple[list[list[str]], list[str], float]:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    jitter = 3
    common = [sys.executable, "-m", "agent", "datacenter", "-leaf-rotation-jitter", f"{jitter}s"]
    common += ["-translate-wan-addrs"] if translate else []
    commands = []
    for name, url in zip(("dc1", "dc2"), urls, strict=True):
        named = ["-name", name, "-http-addr", url.removeprefix("http://"), "-data-dir", str(directory / name)]
        commands.append([*common, *named, *options.get(name, ())])
    commands[1] += ["-primary-datacenter", "dc1", "-primary-addr", urls[0]]
    return commands, urls, 30


def _consul(
    directory: Path, *, translate: bool, grpc: Sequence[int]
) -> tuple[list[list[str]], list[str], float]:
    binary = consul_binary()
    assert binary
    hosts = ["127.0.0.11", "127.0.0.12"]
    http = [free_port() for _ in hosts]
    wan = [free_port(host) for host in hosts]
    commands = []
    for here, other in ((0, 1), (1, 0)):
        ports = {
            "http": http[here],
            "serf_wan": wan[here],
            "serf_lan": free_port(hosts[here]),
            "server": free_port(hosts[here]),
            **switched_off(binary, "https", "grpc", "dns"),
            **({"grpc": grpc[here]} if grpc else {}),
        }
        settings = {
            "datacenter": f"dc{here + 1}",
            "primary_datacenter": "dc1",
            "node_name": f"node-dc{here + 1}",
            "server": True,
            "bootstrap_expect": 1,
            "data_dir": str(directory / f"dc{here + 1}"),
            "bind_addr": hosts[here],
            "client_addr": "127.0.0.1",
            "ports": ports,
            "retry_join_wan": [f"{hosts[other]}:{wan[other]}"],
            "retry_interval_wan": "1s",
            "translate_wan_addrs": translate,
            "connect": {"enabled": True},
            "acl": {"enabled": False},
            "performance": {"raft_multiplier": 1},
            "enable_central_service_config": True,
            "disable_update_check": True,
        }
        file = directory / f"dc{here + 1}.json"
        file.write_text(json.dumps(settings))
        commands.append([binary, "agent", "-config-file", str(file)])
    return commands, [f"http://127.0.0.1:{port}" for port in http], 30


def wait_until_ready(federation: Federation) -> None:
    """Wait until both see each other, sign leaves and have a node."""
    deadline = monotonic() + START_SECONDS
    while missing := _missing(federation):
        for member in federation.processes:
            member.must_live()
            assert monotonic() < deadline, f"not ready, {missing}:\n{member.last_words()}"
        sleep(0.1)  # a poll of two other processes' readiness; there is nothing to wait on


def _missing(federation: Federation) -> str:
    """What is not there yet, empty when nothing is."""
    for api in federation:
        try:
            if (answer := api.get("/v1/catalog/datacenters")).status != 200 or len(answer.json) != 2:
                return f"{api.name} does not see both datacenters"
            if (answer := api.get("/v1/agent/connect/ca/leaf/readiness-probe")).status != 200:
                return f"{api.name} signs no leaf: {answer.text}"
            if not (answer := api.get("/v1/catalog/nodes")).json:
                return f"{api.name} has no node"
        except ConnectionError as error:
            return f"{api.name}: {error}"
    return ""
