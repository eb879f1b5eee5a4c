"""What the watchdog restarts, and what it does not: Consul's silence is no reason."""

from __future__ import annotations

import time

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import UPSTREAM, WAN_HOST, Mesh, federation, workloads

pytestmark = pytest.mark.root

HELLO = "hello from db\n"
INTERVAL = 4.0  # seconds, of the watchdog
FAST = f"[Service]\nWatchdogSec={INTERVAL:g}\nRestartSec=100ms\n"


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Datacenters, workloads and both sidecars, with a fast watchdog."""
    made = federation(machine)
    workloads(made)
    machine.add_unit("sidecar@.service.d/fast.conf", FAST)
    for name in ("db", "web"):
        machine.start(f"sidecar@{name}")
    assert made.get(UPSTREAM) == HELLO
    return made


def restarts(mesh: Mesh, instance: str) -> int:
    """How often systemd has started it again."""
    return int(mesh.machine.show(f"sidecar@{instance}", "NRestarts"))


def this_run(mesh: Mesh, instance: str) -> str:
    """What a sidecar has written since its last start."""
    return mesh.machine.journal_of_run(mesh.machine.show(f"sidecar@{instance}", "InvocationID"))


def test_consul_that_hangs_or_is_gone_is_no_reason(mesh: Mesh) -> None:
    machine = mesh.machine
    before = [restarts(mesh, name) for name in ("db", "web")]
    pid = machine.show("sidecar-datacenter@dc1", "MainPID")
    machine.run("kill", "-STOP", pid)
    machine.systemctl("stop", "sidecar-datacenter@dc2")
    time.sleep(2.5 * INTERVAL)
    assert mesh.get(UPSTREAM) == HELLO
    machine.run("kill", "-CONT", pid)
    machine.start("sidecar-datacenter@dc2")
    assert [restarts(mesh, name) for name in ("db", "web")] == before
    assert "watchdog.unfed" not in this_run(mesh, "db")


def test_a_public_listener_that_does_not_answer_is_restarted_and_the_reason_logged(mesh: Mesh) -> None:
    machine, before = mesh.machine, restarts(mesh, "db")
    unreachable = ("unreachable", f"{WAN_HOST}/32", "table", "local")
    machine.run("ip", "route", "add", *unreachable)
    until(lambda: restarts(mesh, "db") > before or None, "another start")
    machine.run("ip", "route", "del", *unreachable)
    assert "watchdog.unfed: detail=" in machine.journal("sidecar@db")
    until(lambda: mesh.get(UPSTREAM) == HELLO or None, "an answer through the mesh")


def test_a_loop_that_does_not_turn_is_restarted(mesh: Mesh) -> None:
    machine, before = mesh.machine, restarts(mesh, "db")
    machine.run("kill", "-STOP", str(mesh.pid("db")))
    until(lambda: restarts(mesh, "db") > before or None, "another start")
    until(lambda: mesh.get(UPSTREAM) == HELLO or None, "an answer through the mesh")


def test_workers_that_hang_are_replaced(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write("/etc/connect-sidecar/db.env", "SIDECAR_WORKERS=2\n", mode=0o600)
    machine.systemctl("restart", "sidecar@db")

    def workers() -> list[str]:
        return machine.run("pgrep", "--parent", str(mesh.pid("db")), check=False).split()

    before = workers()
    assert len(before) == 2
    time.sleep(2 * INTERVAL)
    assert "watchdog.unfed" not in this_run(mesh, "db")
    for pid in before:
        machine.run("kill", "-STOP", pid)
    until(lambda: len(set(workers()) - set(before)) == 2 or None, "other workers", seconds=60)
    until(lambda: mesh.get(UPSTREAM) == HELLO or None, "an answer through the mesh")
