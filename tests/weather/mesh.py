"""`web` calls `db` in one datacenter; before each sidecar's way to its agent stands a front.

The datacenter is an embedded one, or a real Consul server: a process either way, as are the sidecars. The
apps echo; they live in the test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.contract.federation import Kind, consul_binary, free_port, switched_off
from tests.rotation.mesh import Process, Sidecar, Site, echo, until
from tests.weather.front import Front

CHECK_SECONDS = "1s"


@dataclass(kw_only=True)
class Stormy:
    """All of it. `web` and `db` are sidecars, each behind a front of its own; `site` is the agent of db."""

    site: Site
    web: Sidecar
    db: Sidecar
    fronts: tuple[Front, Front]
    app: int  # the port of db's

    async def endpoints(self) -> dict[str, str]:
        """Return the status of each instance of db, as web knows it."""
        (upstream,) = (await self.web.status())["upstreams"]
        (target,) = upstream["targets"]
        return {row["instance"].split()[0]: row["status"] for row in target["endpoints"] or ()}

    async def rules(self) -> list[str]:
        """Return the intentions of db, as its sidecar knows them."""
        return list((await self.db.status())["intentions"]["rules"])

    async def watches(self) -> int:
        """Return how many watches both sidecars have."""
        return len((await self.web.status())["watches"]) + len((await self.db.status())["watches"])


@asynccontextmanager
async def stormy(directory: Path, kind: Kind = "embedded") -> AsyncIterator[Stormy]:
    """Everything up, passing, and answering."""
    port = free_port()
    command = _embedded(directory, port) if kind == "embedded" else _consul(directory, port)
    site = Site(command=command, log=directory / "dc1.log", name="dc1", port=port)
    processes: list[Process] = [site]
    async with trio.open_nursery() as nursery:
        fronts = Front(port), Front(port)
        for front in fronts:
            await nursery.start(front.run)
        try:
            site.start()
            await until(lambda: site.ask("GET", "/v1/agent/connect/ca/leaf/probe"), "the datacenter signs")
            whole = await callers(nursery, (site, site), fronts, directory)
            processes += (whole.web, whole.db)
            await begun(whole)
            yield whole
        finally:
            for process in reversed(processes):
                process.end()
        nursery.cancel_scope.cancel()


async def callers(
    nursery: trio.Nursery, sites: tuple[Site, Site], fronts: tuple[Front, Front], directory: Path
) -> Stormy:
    """Register web and db with their agents, in this order; their sidecars are not started yet."""
    made, apps = [], [await _app(nursery), await _app(nursery)]
    for name, site, front, app in zip(("web", "db"), sites, fronts, apps, strict=True):
        sidecar = _sidecar(site, name, front, directory)
        await register(sidecar, app)
        made.append(sidecar)
    return Stormy(site=sites[1], web=made[0], db=made[1], fronts=fronts, app=apps[1])


async def begun(whole: Stormy) -> None:
    """Start both sidecars, and wait until calls are answered."""
    for sidecar in (whole.web, whole.db):
        sidecar.start()
    for sidecar in (whole.web, whole.db):
        await until(lambda one=sidecar: _ready(one), f"{sidecar.name} is ready")  # type: ignore[misc]
    await until(lambda: passing(whole), "db is passing")
    await until(lambda: answers(whole.web.upstream), "db answers")


def _embedded(directory: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "agent", "datacenter", "-name", "dc1"]
    return [*command, "-http-addr", f"127.0.0.1:{port}", "-data-dir", str(directory / "dc1")]


def _consul(directory: Path, port: int) -> list[str]:
    binary = consul_binary()
    assert binary
    own = {name: free_port() for name in ("serf_lan", "server")}
    settings = {
        "datacenter": "dc1",
        "server": True,
        "bootstrap_expect": 1,
        "data_dir": str(directory / "dc1"),
        "bind_addr": "127.0.0.1",
        "ports": {"http": port, **own, **switched_off(binary, "https", "grpc", "dns", "serf_wan")},
        "connect": {"enabled": True},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
    }
    file = directory / "dc1.json"
    file.write_text(json.dumps(settings))
    return [binary, "agent", "-config-file", str(file)]


async def _app(nursery: trio.Nursery) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    nursery.start_soon(trio.serve_listeners, echo, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


def _sidecar(site: Site, name: str, front: Front, directory: Path) -> Sidecar:
    admin = free_port()
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", name]
    command += ["-http-addr", f"127.0.0.1:{front.port}", "-admin-bind", f"127.0.0.1:{admin}"]
    command += ["-drain-seconds", "1", "-leave-seconds", "0"]
    return Sidecar(
        command=command,
        log=directory / f"{name}.log",
        name=name,
        site=site,
        admin=admin,
        public=free_port(),
        upstream=free_port(),
    )


async def register(sidecar: Sidecar, app: int) -> None:
    """Register the service and its sidecar, which has a TCP check on its door; web has db as its upstream."""
    wanted = {"DestinationName": "db", "LocalBindPort": sidecar.upstream}
    check = {"Name": "door", "TCP": f"127.0.0.1:{sidecar.public}", "Interval": CHECK_SECONDS}
    proxy: dict[str, Any] = {
        "Address": "127.0.0.1",
        "Port": sidecar.public,
        "Checks": [check],
        "Proxy": {"Upstreams": [wanted] if sidecar.name == "web" else []},
    }
    service = {"Name": sidecar.name, "Port": app, "Connect": {"SidecarService": proxy}}
    assert await sidecar.site.ask("PUT", "/v1/agent/service/register", service) is not None


async def answers(port: int) -> bool:
    """Return whether a call to an upstream is answered."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            return await stream.receive_some() == b"hello"
    except (OSError, trio.BrokenResourceError):
        return False


async def _ready(sidecar: Sidecar) -> bool:
    return bool((await sidecar.status()).get("ready"))


async def passing(whole: Stormy) -> bool:
    """Return whether web knows db, and as passing."""
    return set((await whole.endpoints()).values()) == {"passing"}
