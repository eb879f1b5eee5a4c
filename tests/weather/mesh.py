"""`web` calls `db` in one datacenter; before each sidecar's way to its agent stands a front.

The datacenter is an embedded one, or a real Consul server with a client agent beside each sidecar: processes
all, as are the sidecars. The apps echo; they live in the test.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.contract.federation import Kind, free_port
from tests.rotation.mesh import Sidecar, Site, echo, until
from tests.weather.client_agent import cluster, signs
from tests.weather.front import Front
from upstreams.answers import TUNNEL_KEY

CHECK_SECONDS = "1s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """An agent that may be ended and started again; `leaves`: by SIGTERM, and else by SIGKILL."""

    name: str
    agent: Site
    leaves: bool = False

    async def run(self, seconds: float, beside: Site) -> None:
        """Let it be away for that many seconds, and wait until the agent beside db answers."""
        if self.leaves:
            await trio.to_thread.run_sync(self.agent.end)
        else:
            self.agent.kill()
        await trio.sleep(seconds)
        self.agent.start()
        await until(lambda: signs(beside), "the agent is back")
        # The answer is empty while there is no leader.
        await until(lambda: beside.ask("GET", "/v1/status/leader"), "the agent has a leader")


@dataclass(kw_only=True)
class Stormy:
    """All of it. `web` and `db` are sidecars, each behind a front of its own; `site` is the agent of db."""

    site: Site
    web: Sidecar
    db: Sidecar
    fronts: tuple[Front, Front]
    app: int  # the port of db's
    restarts: tuple[Restart, ...] = ()

    async def endpoints(self) -> dict[str, str]:
        """Return the status of each instance of db, as web knows it."""
        (upstream,) = (await self.web.status())["upstreams"]
        (target,) = upstream["targets"]
        return {row["instance"].split()[0]: row["status"] for row in target["endpoints"] or ()}

    async def is_offered(self) -> bool:
        """Return whether web knows the instance of db as passing; after a restart its checks run first."""
        return (await self.endpoints()).get("db-sidecar-proxy") == "passing"

    async def rules(self) -> list[str]:
        """Return the intentions of db, as its sidecar knows them."""
        return list((await self.db.status())["intentions"]["rules"])

    async def watches(self) -> int:
        """Return how many watches both sidecars have."""
        return len((await self.web.status())["watches"]) + len((await self.db.status())["watches"])


@asynccontextmanager
async def stormy(directory: Path, kind: Kind = "embedded", *, tunnels: bool = False) -> AsyncIterator[Stormy]:
    """Everything up, passing, and answering: beside one embedded datacenter, or real client agents.

    `tunnels`: web's calls to db are streams of a tunnel.
    """
    agents = _alone(directory) if kind == "embedded" else _clients(directory)
    async with agents as (near, far, restarts), trio.open_nursery() as nursery:
        fronts = Front(near.port), Front(far.port)
        for front in fronts:
            await nursery.start(front.run)
        whole = await _registered(nursery, (near, far), fronts, directory, tunnels=tunnels)
        whole.restarts = restarts
        try:
            await _begin(whole)
            yield whole
        finally:
            whole.web.end()
            whole.db.end()
        nursery.cancel_scope.cancel()


_Agents = tuple[Site, Site, tuple[Restart, ...]]  # of web, of db, and what may be restarted


@asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[_Agents]:
    port = free_port()
    command = [sys.executable, "-m", "agent", "datacenter", "-name", "dc1"]
    command += ["-http-addr", f"127.0.0.1:{port}", "-data-dir", str(directory / "dc1")]
    site = Site(command=command, log=directory / "dc1.log", name="dc1", port=port)
    try:
        site.start()
        await until(lambda: signs(site), "the datacenter signs")
        yield site, site, (Restart(name="agent killed", agent=site),)
    finally:
        site.end()


@asynccontextmanager
async def _clients(directory: Path) -> AsyncIterator[_Agents]:
    async with cluster(directory, "web", "db") as consul:
        near, far = consul.clients.values()
        yield (
            near,
            far,
            (
                Restart(name="client agent of db restarted, it leaves", agent=far, leaves=True),
                Restart(name="client agent of db killed", agent=far),
                Restart(name="client agent of web killed", agent=near),
                Restart(name="server killed", agent=consul.server),
            ),
        )


async def _registered(
    nursery: trio.Nursery,
    sites: tuple[Site, Site],
    fronts: tuple[Front, Front],
    directory: Path,
    *,
    tunnels: bool,
) -> Stormy:
    made, apps = [], [await _app(nursery), await _app(nursery)]
    for name, site, front, app in zip(("web", "db"), sites, fronts, apps, strict=True):
        sidecar = _sidecar(site, name, front, directory)
        await register(sidecar, app, tunnels=tunnels)
        made.append(sidecar)
    return Stormy(site=sites[1], web=made[0], db=made[1], fronts=fronts, app=apps[1])


async def _begin(whole: Stormy) -> None:
    """Start both sidecars, and wait until calls are answered."""
    for sidecar in (whole.web, whole.db):
        sidecar.start()
    for sidecar in (whole.web, whole.db):
        await until(lambda one=sidecar: _ready(one), f"{sidecar.name} is ready")  # type: ignore[misc]
    await until(lambda: passing(whole), "db is passing")
    await until(lambda: answers(whole.web.upstream), "db answers")


async def _app(nursery: trio.Nursery) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    nursery.start_soon(trio.serve_listeners, echo, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


def _sidecar(site: Site, name: str, front: Front, directory: Path) -> Sidecar:
    admin = free_port()
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", name]
    command += ["-http-addr", f"127.0.0.1:{front.port}", "-admin-bind", f"127.0.0.1:{admin}"]
    command += ["-drain-seconds", "1", "-leave-seconds", "0", "-tunnel", "auto"]
    return Sidecar(
        command=command,
        log=directory / f"{name}.log",
        name=name,
        site=site,
        admin=admin,
        public=free_port(),
        upstream=free_port(),
    )


async def register(sidecar: Sidecar, app: int, *, tunnels: bool = False) -> None:
    """Register the service and its sidecar, which has a TCP check on its door; web has db as its upstream.

    `tunnels`: the sidecar says there that it takes them.
    """
    wanted = {"DestinationName": "db", "LocalBindPort": sidecar.upstream}
    check = {"Name": "door", "TCP": f"127.0.0.1:{sidecar.public}", "Interval": CHECK_SECONDS}
    proxy: dict[str, Any] = {
        "Address": "127.0.0.1",
        "Port": sidecar.public,
        "Checks": [check],
        "Proxy": {
            "Upstreams": [wanted] if sidecar.name == "web" else [],
            "Config": {TUNNEL_KEY: True} if tunnels else {},
        },
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
