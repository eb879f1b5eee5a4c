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
RATE = 200
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
    install(machine, "load-across", UPSTREAM, str(RATE // 4))
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
