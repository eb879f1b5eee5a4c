"""No caller is refused, whatever happens to the sidecars: restarts, crashes, without any socket unit.

The counts are small; docs/decisions.md#the-manager-keeps-the-listeners has those of one long run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import (
    PUBLIC_PORT,
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

TIMES = int(os.environ.get("RESTARTS", "2"))  # noqa: TID251 - a longer run is asked for by hand
RATE = int(os.environ.get("RATE", "50"))  # noqa: TID251 - likewise; callers a second
STREAMS = 20
ACROSS = UPSTREAM.removeprefix("http")


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Datacenters, workloads and both sidecars, without a socket unit."""
    made = federation(machine)
    workloads(made)
    machine.add_unit("sidecar@.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    for name in ("db", "web"):
        machine.start(f"sidecar@{name}")
    install(machine, "load-public", f"tcp://{WAN_HOST}:{PUBLIC_PORT}", str(RATE))
    install(machine, "load-upstream", f"tcp{ACROSS}", str(RATE))
    install(machine, "load-across", UPSTREAM, str(RATE))
    install(machine, "load-streams", f"stream{ACROSS}", str(STREAMS))
    return made


def under_load(mesh: Mesh, act: Callable[[], None]) -> dict[str, Any]:
    """Act while callers come; return their reports."""
    names = ("load-public", "load-upstream", "load-across")
    for name in names:
        start_load(mesh.machine, name)
    act()
    return {name: load(mesh.machine, name) for name in names}


def killed(mesh: Mesh, instance: str) -> None:
    """Kill a sidecar, and wait until it serves again."""
    before = mesh.pid(instance)
    mesh.machine.run("kill", "-KILL", str(before))
    until(lambda: mesh.pid(instance) not in (0, before) or None, "another process")
    until(lambda: mesh.machine.show(f"sidecar@{instance}", "ActiveState") == "active" or None, "it serves")
    mesh.get(UPSTREAM)  # after those who waited, so that the next kill finds few connections open


@pytest.mark.parametrize("instance", ["db", "web"])
def test_no_restart_refuses_a_caller(mesh: Mesh, instance: str) -> None:
    def restart() -> None:
        for _ in range(TIMES):
            mesh.machine.systemctl("restart", f"sidecar@{instance}")

    reports = under_load(mesh, restart)
    assert [report["failures"] for report in reports.values()] == [[], [], []]


@pytest.mark.parametrize("instance", ["db", "web"])
def test_no_kill_refuses_a_caller(mesh: Mesh, instance: str) -> None:
    def kill() -> None:
        for _ in range(TIMES):
            killed(mesh, instance)

    reports = under_load(mesh, kill)
    assert [reports[name]["failures"] for name in ("load-public", "load-upstream")] == [[], []]


@pytest.mark.parametrize("instance", ["db", "web"])
@pytest.mark.parametrize("act", ["reload", "upgrade"])
def test_no_reload_and_no_upgrade_refuses_a_caller_or_resets_a_stream(
    mesh: Mesh, instance: str, act: str
) -> None:
    start_load(mesh.machine, "load-streams")

    def change() -> None:
        for _ in range(TIMES):
            if act == "reload":
                mesh.machine.systemctl("reload", f"sidecar@{instance}")
            else:
                upgraded(mesh, instance)

    reports = under_load(mesh, change)
    streams = load(mesh.machine, "load-streams")
    assert [report["failures"] for report in reports.values()] == [[], [], []]
    assert (streams["calls"], streams["failed"]) == (STREAMS, 0)


def upgraded(mesh: Mesh, instance: str) -> None:
    """Upgrade a sidecar, and wait until the new program is its main process and serves."""
    unit, before = f"sidecar@{instance}", mesh.pid(instance)
    mesh.machine.systemctl("kill", "--signal=USR2", "--kill-who=main", unit)
    until(lambda: mesh.pid(instance) not in (0, before) or None, "another main process")
    until(lambda: mesh.machine.show(unit, "StatusText").startswith("serving") or None, "it serves")


def test_an_upgrade_that_cannot_serve_leaves_the_old_program_and_says_why(mesh: Mesh) -> None:
    machine, before, path = mesh.machine, mesh.pid("web"), "/etc/connect-sidecar/web.toml"
    settings = machine.outside(path).read_text()
    machine.write(path, f"{settings}drain_secs = 3\n")
    machine.systemctl("kill", "--signal=USR2", "--kill-who=main", "sidecar@web")
    until(lambda: "drain_secs" in machine.show("sidecar@web", "StatusText") or None, "the reason in STATUS")
    assert (mesh.pid("web"), mesh.get(UPSTREAM)) == (before, "hello from db\n")
    machine.write(path, settings)
    upgraded(mesh, "web")
    assert "drain_secs" not in machine.show("sidecar@web", "StatusText")


def test_a_stop_ends_what_is_left_of_the_old_program_in_its_time(mesh: Mesh) -> None:
    machine = mesh.machine
    start_load(machine, "load-streams")
    old = mesh.pid("db")
    upgraded(mesh, "db")
    assert machine.run("ps", "-o", "pid=", "-p", str(old)).strip() == str(old)
    machine.systemctl("stop", "sidecar@db")
    assert "drained cut=20" in machine.journal("sidecar@db")
    assert machine.show("sidecar@db", "ActiveState") == "inactive"
    machine.start("sidecar@db")
    load(machine, "load-streams")


def test_with_workers_neither_a_restart_nor_an_upgrade_refuses_a_caller(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write("/etc/connect-sidecar/db.env", "SIDECAR_WORKERS=2\n", mode=0o600)
    machine.systemctl("restart", "sidecar@db")
    start_load(machine, "load-streams")

    def change() -> None:
        upgraded(mesh, "db")
        assert load(machine, "load-streams")["failed"] == 0
        machine.systemctl("restart", "sidecar@db")

    reports = under_load(mesh, change)
    assert [report["failures"] for report in reports.values()] == [[], [], []]
