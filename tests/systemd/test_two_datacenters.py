"""The whole path as units: two datacenters, a hardened sidecar beside each workload, restarts and stops."""

from __future__ import annotations

import json
import re

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import (
    CURL,
    PUBLIC_PORT,
    SIDECAR,
    UPSTREAM,
    WAN_HOST,
    Mesh,
    federation,
    install,
    load,
    start_load,
    workloads,
)

pytestmark = pytest.mark.root

HELLO = "hello from db\n"


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Datacenters, workloads and both sidecars, that of db with its public listener held by systemd."""
    made = federation(machine)
    workloads(made)
    machine.start("sidecar@db.socket")
    machine.start("sidecar@db")
    machine.start("sidecar@web")
    return made


def test_started_means_serving(mesh: Mesh) -> None:
    mesh.machine.systemctl("restart", "sidecar@web")
    # No waiting here: systemctl returned when READY=1 was sent.
    assert mesh.admin("web", "/ready")[0] == 200
    assert mesh.get(UPSTREAM) == HELLO


def test_a_request_crosses_by_the_wan_address_under_the_identities_of_both_ends(mesh: Mesh) -> None:
    assert mesh.get(UPSTREAM) == HELLO
    out, back = (json.loads(mesh.admin(name, "/status")[1])["recent"][-1] for name in ("web", "db"))
    assert (out["address"], out["why"]) == (f"{WAN_HOST}:{PUBLIC_PORT}", "wan_tag")
    assert out["peer"].endswith("/ns/default/dc/dc2/svc/db")
    assert back["peer"].endswith("/ns/default/dc/dc1/svc/web")


@pytest.mark.parametrize("instance", ["web", "db"])
def test_no_memory_is_writable_and_executable(mesh: Mesh, instance: str) -> None:
    assert mesh.get(UPSTREAM) == HELLO
    machine, pid = mesh.machine, mesh.pid(instance)
    assert machine.show(f"sidecar@{instance}", "MemoryDenyWriteExecute") == "yes"
    assert "Seccomp:\t2" in machine.run("cat", f"/proc/{pid}/status")
    maps = machine.run("cat", f"/proc/{pid}/maps")
    assert "libssl" in maps or "_rust.abi3.so" in maps
    assert re.findall(r"^\S+ .wx.*$", maps, flags=re.MULTILINE) == []


def test_a_restart_refuses_nobody_when_systemd_holds_the_listener(mesh: Mesh) -> None:
    machine, before = mesh.machine, mesh.pid("db")
    install(machine, "load-requests", UPSTREAM)
    install(machine, "load-connections", f"tcp://{WAN_HOST}:{PUBLIC_PORT}")
    for name in ("load-requests", "load-connections"):
        start_load(machine, name)
    for _ in range(2):
        machine.systemctl("restart", "sidecar@db")
    reports = [load(machine, name) for name in ("load-requests", "load-connections")]
    assert [report["failures"] for report in reports] == [[], []]
    assert mesh.pid("db") != before


def test_an_upgrade_takes_the_sockets_of_systemd_along(mesh: Mesh) -> None:
    machine, before = mesh.machine, mesh.pid("db")
    load_name = "load-connections"
    install(machine, load_name, f"tcp://{WAN_HOST}:{PUBLIC_PORT}")
    start_load(machine, load_name)
    machine.systemctl("kill", "--signal=USR2", "--kill-who=main", "sidecar@db")
    until(lambda: mesh.pid("db") not in (0, before) or None, "another main process")
    until(lambda: mesh.admin("db", "/ready")[0] == 200 or None, "it serves")
    assert load(machine, load_name)["failures"] == []
    assert "socket_" not in mesh.admin("db", "/status")[1]
    assert mesh.get(UPSTREAM) == HELLO


def test_a_stop_lets_the_running_request_end_and_nobody_in(mesh: Mesh) -> None:
    machine = mesh.machine
    install(machine, "app-unused", "unused")  # the script, for the slow call below
    machine.add_unit(
        "slow-call.service",
        f"[Service]\nType=exec\nExecStart={' '.join(CURL)} {UPSTREAM}/slow\n",
    )
    machine.start("slow-call")
    until(lambda: "hello" in machine.journal("slow-call") or None, "the first line of the slow answer")
    machine.systemctl("stop", "sidecar@db.socket", "sidecar@db.service")
    until(
        lambda: machine.show("slow-call", "ActiveState") == "inactive" or None, "the end of the slow answer"
    )
    assert machine.show("slow-call", "Result") == "success"
    assert machine.journal("slow-call").count("hello from db") == 20
    assert machine.show("sidecar@db", "Result") == "success"
    assert machine.show("sidecar@db", "ExecMainStatus") == "0"
    assert mesh.get(UPSTREAM) == ""
    machine.start("sidecar@db.socket")
    machine.start("sidecar@db")
    assert mesh.get(UPSTREAM) == HELLO


def test_the_operators_commands_reach_it_over_its_own_socket(mesh: Mesh) -> None:
    machine = mesh.machine
    admin = ("-admin-bind", "unix:/run/connect-sidecar/web/admin.sock")
    assert "svc/web" in machine.run(SIDECAR, "status", *admin)
    machine.run(SIDECAR, "wait", *admin)
    machine.run(SIDECAR, "drain", *admin)
    until(lambda: machine.show("sidecar@web", "ActiveState") == "inactive" or None, "the end of the drain")
    assert machine.show("sidecar@web", "ExecMainStatus") == "0"
    machine.start("sidecar@web")
    assert mesh.get(UPSTREAM) == HELLO


def test_a_killed_sidecar_comes_back(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.add_unit("sidecar@db.service.d/soon.conf", "[Service]\nRestartSec=100ms\n")
    before = mesh.pid("db")
    machine.run("kill", "-KILL", str(before))
    until(lambda: mesh.pid("db") not in (0, before) or None, "another process")
    until(lambda: machine.show("sidecar@db", "ActiveState") == "active" or None, "a running sidecar")
    assert mesh.get(UPSTREAM) == HELLO


def test_a_sidecar_that_hangs_is_killed_by_the_watchdog_and_comes_back(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.add_unit("sidecar@web.service.d/watchdog.conf", "[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
    machine.systemctl("restart", "sidecar@web")
    before = mesh.pid("web")
    machine.run("kill", "-STOP", str(before))
    until(lambda: mesh.pid("web") not in (0, before) or None, "another process")
    until(lambda: machine.show("sidecar@web", "ActiveState") == "active" or None, "a running sidecar")
    assert machine.show("sidecar@web", "NRestarts") == "1"
    assert mesh.get(UPSTREAM) == HELLO
