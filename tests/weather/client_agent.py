"""A real Consul as it runs in production: one server, and client agents beside the instances."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.federation import consul_binary, free_port, switched_off
from tests.rotation.mesh import Process, Site, until


@dataclass(kw_only=True)
class Cluster:
    """The server, and the clients by the name of their node."""

    server: Site
    clients: dict[str, Site]


@asynccontextmanager
async def cluster(directory: Path, *nodes: str) -> AsyncIterator[Cluster]:
    """The server and a client agent for each node, joined; ended by process id."""
    lan = free_port("127.0.0.71")
    server = _agent("server", directory, "127.0.0.71", lan, {"server": True, "bootstrap_expect": 1})
    joins = {"retry_join": [f"127.0.0.71:{lan}"], "retry_interval": "1s"}
    hosts = {name: f"127.0.0.{72 + number}" for number, name in enumerate(nodes)}
    clients = {name: _agent(name, directory, host, free_port(host), joins) for name, host in hosts.items()}
    started: list[Process] = []
    try:
        for site in (server, *clients.values()):
            started.append(site)
            site.start()
            await until(lambda one=site: signs(one), f"{site.name} signs")  # type: ignore[misc]
        yield Cluster(server=server, clients=clients)
    finally:
        for process in reversed(started):
            process.end()


async def signs(site: Site) -> bool:
    """Return whether that agent answers with a leaf."""
    return await site.ask("GET", "/v1/agent/connect/ca/leaf/probe") is not None


def _agent(name: str, directory: Path, host: str, lan: int, more: Mapping[str, object]) -> Site:
    binary = consul_binary()
    assert binary
    http = free_port()
    ports = {"http": http, "serf_lan": lan, "server": free_port(host)}
    settings = {
        "datacenter": "dc1",
        "node_name": name,
        "data_dir": str(directory / name),
        "bind_addr": host,
        "client_addr": "127.0.0.1",
        "ports": {**ports, **switched_off(binary, "https", "grpc", "dns", "serf_wan")},
        "connect": {"enabled": True},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
        **more,
    }
    file = directory / f"{name}.json"
    file.write_text(json.dumps(settings))
    command = [binary, "agent", "-config-file", str(file)]
    return Site(command=command, log=directory / f"{name}.log", name=name, port=http)
