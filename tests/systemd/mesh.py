"""Two federated datacenters, two workloads and a sidecar beside each, all as units of the private machine.

dc1  127.0.1.1   sidecar-datacenter@dc1, the primary; app-web, sidecar@web with an upstream db@dc2
dc2  127.0.2.1   sidecar-datacenter@dc2; app-db, sidecar@db, dialled by its WAN address 127.0.2.20
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.systemd.boot import Machine, until

PYTHON = "/opt/connect-sidecar/bin/python"
SIDECAR = "/opt/connect-sidecar/bin/sidecar"
API = {"dc1": "http://127.0.1.1:8500", "dc2": "http://127.0.2.1:8500"}
WAN_HOST, PUBLIC_PORT, APP_PORT = "127.0.2.20", 21000, 8080
UPSTREAM = "http://127.0.0.1:9191"
# A stop hardly waits for callers to look elsewhere; an instance whose socket systemd holds does not.
QUICK = "leave_seconds = 0.2\n"
LAST_SECONDS = 180  # for the callers that have begun
CURL = ("curl", "--silent", "--show-error", "--max-time", "20")

DC1 = """
name = "dc1"
http_addr = "127.0.1.1:8500"
translate_wan_addrs = true
"""
DC2 = """
name = "dc2"
http_addr = "127.0.2.1:8500"
translate_wan_addrs = true
primary_datacenter = "dc1"
primary_addr = "http://127.0.1.1:8500"
"""
# Without checks of its own a sidecar gets Consul's default, a probe of 127.0.0.1, where these do not listen.
WEB = {
    "Name": "web",
    "Address": "127.0.1.10",
    "Port": APP_PORT,
    "Connect": {
        "SidecarService": {
            "Address": "127.0.1.10",
            "Port": PUBLIC_PORT,
            "Checks": [{"Name": "the workload's", "AliasService": "web"}],
            "Proxy": {
                # A sidecar of db that restarts on a busy machine takes its time; the callers have as much.
                "Upstreams": [
                    {
                        "DestinationName": "db",
                        "Datacenter": "dc2",
                        "LocalBindPort": 9191,
                        "Config": {"deadline_ms": 30_000},
                    }
                ],
                "LocalServiceAddress": "127.0.1.10",
                "Config": {"handshake_timeout_ms": 30_000},
            },
        }
    },
}
DB = {
    "Name": "db",
    "Address": "127.0.2.10",
    "Port": APP_PORT,
    "Connect": {
        "SidecarService": {
            # The LAN address is one nobody listens at: whoever dials it from dc1 has dialled the wrong one.
            "Address": "127.0.2.99",
            "Port": 9,
            "TaggedAddresses": {"wan": {"Address": WAN_HOST, "Port": PUBLIC_PORT}},
            "Checks": [{"Name": "the workload's", "AliasService": "db"}],
            "Proxy": {
                "LocalServiceAddress": "127.0.2.10",
                "Config": {"bind_address": WAN_HOST, "bind_port": PUBLIC_PORT},
            },
        }
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The datacenters and workloads run; the sidecars are for the tests to start."""

    machine: Machine

    def call(self, datacenter: str, method: str, path: str, body: object = None, token: str = "") -> str:
        """One call of a datacenter's API, which must succeed."""
        words = [*CURL, "--fail-with-body", "--request", method, f"{API[datacenter]}{path}"]
        if token:
            words += ["--header", f"X-Consul-Token: {token}"]
        return self.machine.run(*words, *(("--data", json.dumps(body)) if body is not None else ()))

    def get(self, url: str) -> str:
        """The body of an answer, whatever its status; empty if there was none."""
        return self.machine.run(*CURL, url, check=False)

    def admin(self, instance: str, path: str) -> tuple[int, str]:
        """Status and body of a sidecar's admin endpoint."""
        socket = f"/run/connect-sidecar/{instance}/admin.sock"
        answer = self.machine.run(
            *CURL, "--unix-socket", socket, "--write-out", "\n%{http_code}", f"http://sidecar{path}"
        )
        body, _, status = answer.rpartition("\n")
        return int(status), body

    def pid(self, instance: str) -> int:
        """The main process of a sidecar, as the machine counts."""
        return int(self.machine.show(f"sidecar@{instance}", "MainPID"))


def install(machine: Machine, name: str, *arguments: str) -> None:
    """Make a unit `NAME` of `app.py` or `load.py`, chosen by the name's first word."""
    script = f"{name.partition('-')[0]}.py"
    machine.write(f"/opt/{script}", Path(__file__).with_name(script).read_text())
    machine.add_unit(
        f"{name}.service",
        f"[Service]\nExecStart={PYTHON} /opt/{script} {' '.join(arguments)}\nTimeoutStopSec={LAST_SECONDS}\n",
    )


def federation(machine: Machine, extra: dict[str, str] | None = None) -> Mesh:
    """Start both datacenters; `extra` is more of their settings by name."""
    mesh = Mesh(machine=machine)
    for name, settings in (("dc1", DC1), ("dc2", DC2)):
        text = settings + (extra or {}).get(name, "")
        machine.write(f"/etc/connect-sidecar/datacenter-{name}.toml", text, mode=0o600)
        machine.start(f"sidecar-datacenter@{name}")
    return mesh


def workloads(mesh: Mesh, token: str = "") -> None:
    """Start the workloads, and register them and their sidecars."""
    install(mesh.machine, "app-web", "web", "127.0.1.10", str(APP_PORT))
    install(mesh.machine, "app-db", "db", "127.0.2.10", str(APP_PORT))
    for name, datacenter, definition in (("web", "dc1", WEB), ("db", "dc2", DB)):
        mesh.machine.start(f"app-{name}")
        mesh.call(datacenter, "PUT", "/v1/agent/service/register", definition, token)
        mesh.machine.write(
            f"/etc/connect-sidecar/{name}.toml",
            f'sidecar_for = "{name}"\nhttp_addr = "{API[datacenter]}"\ndrain_seconds = 10\n'
            + (QUICK if name == "web" else ""),
        )
    socket = f"[Socket]\nListenStream=\nListenStream={WAN_HOST}:{PUBLIC_PORT}\n"
    mesh.machine.add_unit("sidecar@db.socket.d/listen.conf", socket)


def start_load(machine: Machine, name: str) -> None:
    """Start the callers of unit `load-…`, and wait until some have been served."""
    machine.start(name)
    run = machine.show(name, "InvocationID")
    until(lambda: "steady" in machine.journal_of_run(run) or None, f"callers of {name}")


def load(machine: Machine, name: str) -> dict[str, Any]:
    """Stop the callers of unit `load-…` and read their report."""
    run = machine.show(name, "InvocationID")
    machine.systemctl("stop", name, seconds=LAST_SECONDS)

    def said() -> str | None:
        lines = machine.journal_of_run(run).splitlines()
        return next((line for line in lines if line.startswith("{")), None)

    report = until(said, f"a report of {name}")
    found: dict[str, Any] = json.loads(report)
    return found
