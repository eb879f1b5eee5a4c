"""The demo's mesh: its processes, their addresses, and their registrations.

Everything has addresses in one loopback /24 of its own, so that a demo disturbs nothing else on the machine:

    127.0.N.11    dc1: datacenter API :8500, web's and db's apps and sidecars
    127.0.N.21    dc2: datacenter API :8500, db's app; the LAN address its service is registered under
    127.0.N.121   dc2 as the WAN sees it: the only address db's public listener in dc2 is bound to
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

API_PORT = 8500
LAN_PORT, WAN_PORT = 21000, 31000  # where dc2's db is registered, and where the WAN reaches it
ADMIN_PORTS = {"web": 19000, "db": 19001}
APP_PORTS = {"web": 8080, "db": 8081}
UPSTREAM_PORTS = {"db in dc1": 9191, "db in dc2": 9192, "query db-nearest": 9193}


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The loopback addresses of one demo."""

    dc1: str
    dc2: str
    wan: str

    def node(self, datacenter: str) -> str:
        """The LAN address of a datacenter's node."""
        return self.dc1 if datacenter == "dc1" else self.dc2

    def api(self, datacenter: str) -> str:
        """The URL of a datacenter's HTTP API."""
        return f"http://{self.node(datacenter)}:{API_PORT}"

    def admin(self, service: str, datacenter: str) -> str:
        """The URL of a sidecar's admin endpoint."""
        return f"http://{self.node(datacenter)}:{ADMIN_PORTS[service]}"

    def app(self, service: str, datacenter: str) -> str:
        """The URL of a workload itself, past its sidecar."""
        return f"http://{self.node(datacenter)}:{APP_PORTS[service]}"

    def upstream(self, name: str) -> str:
        """The URL of one of web's upstream listeners."""
        return f"http://{self.dc1}:{UPSTREAM_PORTS[name]}"


def free_addresses() -> Addresses:
    """Return the first loopback /24 from 127.0.77 on whose API ports are free.

    Raises:
        OSError: all of them are taken.
    """
    for third in range(77, 97):
        addresses = Addresses(dc1=f"127.0.{third}.11", dc2=f"127.0.{third}.21", wan=f"127.0.{third}.121")
        if all(_bindable(addresses.node(dc)) for dc in ("dc1", "dc2")):
            return addresses
    raise OSError(
        "every loopback network from 127.0.77.0/24 to 127.0.96.0/24 is in use; end an older demo first"
    )


def _bindable(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, API_PORT))
        except OSError:
            return False
        return True


def db_registration(addresses: Addresses, datacenter: str) -> dict[str, object]:
    """Return service `db` with its sidecar.

    In dc2 the WAN pair differs from the LAN pair, and only it is bound.
    """
    node = addresses.node(datacenter)
    bound, port = (node, LAN_PORT) if datacenter == "dc1" else (addresses.wan, WAN_PORT)
    sidecar: dict[str, object] = {
        "Port": LAN_PORT,
        "Proxy": {
            "LocalServiceAddress": node,
            "LocalServicePort": APP_PORTS["db"],
            "Config": {"bind_address": bound, "bind_port": port},
        },
        "Checks": [
            {"Name": "public listener", "TCP": f"{bound}:{port}", "Interval": "1s"},
            {"AliasService": "db"},
        ],
    }
    if datacenter == "dc2":
        sidecar["TaggedAddresses"] = {"wan": {"Address": addresses.wan, "Port": WAN_PORT}}
    return {
        "Name": "db",
        "Address": node,
        "Port": APP_PORTS["db"],
        "Check": {"Name": "app", "TCP": f"{node}:{APP_PORTS['db']}", "Interval": "1s"},
        "Connect": {"SidecarService": sidecar},
    }


def web_registration(addresses: Addresses) -> dict[str, object]:
    """Return service `web` in dc1, whose sidecar reaches `db` in three ways."""

    def upstream(name: str, **destination: str) -> dict[str, object]:
        bind = {"LocalBindAddress": addresses.dc1, "LocalBindPort": UPSTREAM_PORTS[name]}
        return {**destination, **bind}

    return {
        "Name": "web",
        "Address": addresses.dc1,
        "Port": APP_PORTS["web"],
        "Connect": {
            "SidecarService": {
                "Port": LAN_PORT + 1,
                "Proxy": {
                    "LocalServiceAddress": addresses.dc1,
                    "Upstreams": [
                        upstream("db in dc1", DestinationName="db"),
                        upstream("db in dc2", DestinationName="db", Datacenter="dc2"),
                        {
                            **upstream(
                                "query db-nearest",
                                DestinationType="prepared_query",
                                DestinationName="db-nearest",
                            ),
                            "Config": {"poll_interval": "1s"},
                        },
                    ],
                },
                "Checks": [
                    {"Name": "public listener", "TCP": f"{addresses.dc1}:{LAN_PORT + 1}", "Interval": "1s"}
                ],
            }
        },
    }


NEAREST_QUERY = {
    "Name": "db-nearest",
    "Service": {"Service": "db", "Connect": True, "Failover": {"Datacenters": ["dc2"]}},
}


def admin_socket(directory: Path, service: str, datacenter: str) -> Path:
    """Return the socket on which a sidecar takes `rotate` and `drain`."""
    return directory / f"{service}-in-{datacenter}.sock"


def commands(addresses: Addresses, directory: Path) -> dict[str, list[str]]:
    """Return every process of the demo: its name, and the command that starts it."""
    python = sys.executable
    sidecar = [python, "-m", "agent"]

    def datacenter(name: str, *extra: str) -> list[str]:
        fixed = [
            "-name",
            name,
            "-http-addr",
            f"{addresses.node(name)}:{API_PORT}",
            "-data-dir",
            str(directory / name),
        ]
        tuned = ["-node-address", addresses.node(name), "-leaf-rotation-jitter", "1s", "-translate-wan-addrs"]
        return [*sidecar, "datacenter", *fixed, *tuned, *extra]

    def app(service: str, name: str) -> list[str]:
        origin = [python, "-m", "datacenter.demo.origin", "--name", service, "--datacenter", name]
        return [*origin, "--address", addresses.node(name), "--port", str(APP_PORTS[service])]

    def beside(service: str, name: str) -> list[str]:
        api = f"{addresses.node(name)}:{API_PORT}"
        admin = f"{addresses.node(name)}:{ADMIN_PORTS[service]}"
        return [
            *sidecar,
            "run",
            "-sidecar-for",
            service,
            "-http-addr",
            api,
            "-admin-bind",
            admin,
            "-admin-bind",
            f"unix:{admin_socket(directory, service, name)}",
            "-drain-seconds",
            "3",
            "-leave-seconds",
            "0",
        ]

    primary = addresses.api("dc1")
    return {
        "dc1": datacenter("dc1"),
        "dc2": datacenter("dc2", "-primary-datacenter", "dc1", "-primary-addr", primary),
        "db app in dc1": app("db", "dc1"),
        "db app in dc2": app("db", "dc2"),
        "db sidecar in dc1": beside("db", "dc1"),
        "db sidecar in dc2": beside("db", "dc2"),
        "web sidecar in dc1": beside("web", "dc1"),
    }


@dataclass(slots=True)
class Processes:
    """The demo's child processes; each writes to a log of its own below `directory`."""

    directory: Path
    environ: Mapping[str, str]
    commands: Mapping[str, list[str]]
    running: dict[str, trio.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start a process by its name in `commands`; its session is its own, so Ctrl-C reaches only us."""
        with self.log(name).open("ab") as log:
            self.running[name] = await trio.lowlevel.open_process(
                self.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environ),
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.directory / f"{name.replace(' ', '-')}.log"

    async def stop(self, name: str, seconds: float = 8.0) -> int:
        """Send SIGTERM, then SIGKILL after `seconds`; return the exit status."""
        process = self.running.pop(name)
        process.terminate()
        with trio.move_on_after(seconds):
            return await process.wait()
        process.kill()
        return await process.wait()

    async def stop_all(self) -> None:
        """End every process that still runs, callers first."""
        for name in reversed(list(self.running)):
            await self.stop(name)

    def ended(self) -> dict[str, int]:
        """Return the processes that have ended by themselves, with their exit status."""
        return {
            name: status for name, process in self.running.items() if (status := process.poll()) is not None
        }


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the children, without Consul settings of the user."""
    return {
        key: value
        for key, value in environ.items()
        if not key.startswith(("CONSUL_", "CONNECT_", "SIDECAR_"))
    }
