"""Who takes part: every pair by name, and what can be had on this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.consul_pair import binary as consul_binary
from tests.bench.consul_pair import consul
from tests.bench.envoy_pairs import envoy, envoy_rbac, envoy_tunnel
from tests.bench.l7_pairs import sidecar_l7, tunnel_l7, two_workers_l7
from tests.bench.pairs import Pair, Sidecars, Starter, direct, haproxy, nginx, ours, sidecars
from tests.bench.rig import api, ask

TWO = Sidecars(
    name="sidecar x2", service="db-x2", public=21014, upstream=9114, admin=19014, flags=("-workers", "2")
)


@contextlib.contextmanager
def two_workers(directory: Path) -> Iterator[Pair]:
    """Ours, each half with two processes."""
    allow(TWO.service)
    with sidecars(directory, TWO) as pair:
        yield pair


TUNNEL = Sidecars(
    name="sidecar-tunnel",
    service="db-tunnel",
    public=21016,
    upstream=9116,
    admin=19016,
    config={"connect_sidecar_tunnel": True},
    flags=("-tunnel", "auto"),
)


@contextlib.contextmanager
def tunnel(directory: Path) -> Iterator[Pair]:
    """Ours, with all connections in one TLS connection."""
    allow(TUNNEL.service)
    with sidecars(directory, TUNNEL) as pair:
        yield pair


def allow(service: str) -> None:
    """Let web call the service."""
    ask(
        "PUT",
        f"{api('dc1')}/v1/connect/intentions/exact?source=web&destination={service}",
        {"Action": "allow"},
    )


PAIRS: dict[str, Starter] = {
    "direct": direct,
    "sidecar": ours,
    "sidecar x2": two_workers,
    "sidecar-tunnel": tunnel,
    "envoy": envoy,
    "envoy-tunnel": envoy_tunnel,
    "haproxy": haproxy,
    "nginx": nginx,
    "consul": consul,
    "sidecar-l7": sidecar_l7,
    "sidecar-l7 x2": two_workers_l7,
    "sidecar-l7-tunnel": tunnel_l7,
    "envoy-rbac": envoy_rbac,
}


def present() -> list[str]:
    """All that can be had here; Consul's own proxy only where there is a `consul`."""
    return [name for name in PAIRS if name != "consul" or consul_binary() is not None]


def versions() -> dict[str, str]:
    """What each contestant says it is."""
    asked = {
        "envoy": [str(Path(sys.executable).with_name("envoy")), "--version"],
        "haproxy": ["haproxy", "-v"],
        "nginx": ["nginx", "-v"],
        "consul": [consul_binary() or "consul", "version"],
    }
    said = {}
    for name, command in asked.items():
        if shutil.which(command[0]):
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (answer.stdout + answer.stderr).splitlines()
            said[name] = next(line for line in lines if line.strip()).rpartition("version: ")[2]
    return said
