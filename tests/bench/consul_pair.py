"""Consul's own `connect proxy` as a contestant, where a `consul` binary is on PATH or in CONSUL_BIN.

It runs beside the same two datacenters as the others (it cannot tell them from Consul's), under service names
of its own, for it would find the others' instances as well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.bench.pairs import CLIENT, SERVER, Pair, two
from tests.bench.rig import API_PORT, ORIGIN_PORT, BenchFailed, api, ask

PUBLIC, UPSTREAM = 21005, 9105
CALLER, CALLED = "web-consul", "db-consul"


def binary() -> str | None:
    """The `consul` to measure, if there is one."""
    return os.getenv("CONSUL_BIN") or shutil.which("consul")


@contextlib.contextmanager
def consul(directory: Path) -> Iterator[Pair]:
    """Two built-in proxies, each configured by its registration."""
    found = binary()
    if found is None:
        raise BenchFailed("there is no consul binary, neither in CONSUL_BIN nor on PATH")
    proxy = {
        "LocalServiceAddress": SERVER, "LocalServicePort": ORIGIN_PORT,
        "Config": {"bind_address": SERVER, "bind_port": PUBLIC},
    }  # fmt: skip
    _register("dc2", CALLED, SERVER, {"Port": PUBLIC, "Proxy": proxy})
    upstream = {"DestinationName": CALLED, "Datacenter": "dc2",
                "LocalBindAddress": CLIENT, "LocalBindPort": UPSTREAM}  # fmt: skip
    _register("dc1", CALLER, CLIENT, {"Port": 21006, "Proxy": {"Upstreams": [upstream]}})
    rule = f"{api('dc1')}/v1/connect/intentions/exact?source={CALLER}&destination={CALLED}"
    ask("PUT", rule, {"Action": "allow"})
    commands = [
        [found, "connect", "proxy", "-sidecar-for", service, "-http-addr", f"{node}:{API_PORT}",
         "-log-level", "err"]
        for service, node in ((CALLER, CLIENT), (CALLED, SERVER))
    ]  # fmt: skip
    with two(
        directory, "consul", client=commands[0], server=commands[1], upstream=UPSTREAM, public=PUBLIC
    ) as pair:
        yield pair


def _register(datacenter: str, name: str, address: str, sidecar: dict[str, object]) -> None:
    checks = [{"Name": "up", "TTL": "24h", "Status": "passing"}]
    body = {"Name": name, "ID": name, "Address": address, "Port": ORIGIN_PORT,
            "Connect": {"SidecarService": {**sidecar, "Checks": checks}}}  # fmt: skip
    ask("PUT", f"{api(datacenter)}/v1/agent/service/register", body)
