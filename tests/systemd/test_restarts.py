"""No caller is refused, whatever happens to the sidecars: restarts, crashes, with and without socket units.

The counts are small; docs/bench/restarts.md has those of a long run.
"""

from __future__ import annotations

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import UPSTREAM, load, start_load
from tests.systemd.under_load import FULL, STREAMS, Rig, asked, made

pytestmark = pytest.mark.root

TIMES = asked("RESTARTS") or 2
RATE = asked("RATE") or 50


@pytest.fixture(scope="module")
def rig(machine: Machine) -> Rig:
    """Datacenters, workloads and both sidecars, without a socket unit."""
    machine.add_unit("sidecar@.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    return made(machine, dict.fromkeys(FULL, TIMES), RATE)


@pytest.mark.parametrize("instance", ["db", "web"])
def test_no_restart_refuses_a_caller(rig: Rig, instance: str) -> None:
    assert rig.noticed("restart", instance).failures == [[], [], []]


@pytest.mark.parametrize("instance", ["db", "web"])
def test_no_kill_refuses_a_caller(rig: Rig, instance: str) -> None:
    assert rig.noticed("kill", instance).good


@pytest.mark.parametrize("instance", ["db", "web"])
@pytest.mark.parametrize("act", ["reload", "upgrade"])
def test_no_reload_and_no_upgrade_refuses_a_caller_or_resets_a_stream(
    rig: Rig, instance: str, act: str
) -> None:
    noticed = rig.noticed(act, instance)
    assert noticed.failures == [[], [], []]
    assert noticed.streams is not None
    assert (noticed.streams["calls"], noticed.streams["failed"]) == (STREAMS, 0)


def test_an_upgrade_that_cannot_serve_leaves_the_old_program_and_says_why(rig: Rig) -> None:
    mesh = rig.mesh
    machine, before, path = mesh.machine, mesh.pid("web"), "/etc/connect-sidecar/web.toml"
    settings = machine.outside(path).read_text()
    machine.write(path, f"{settings}drain_secs = 3\n")
    machine.systemctl("kill", "--signal=USR2", "--kill-who=main", "sidecar@web")
    until(lambda: "drain_secs" in machine.show("sidecar@web", "StatusText") or None, "the reason in STATUS")
    assert (mesh.pid("web"), mesh.get(UPSTREAM)) == (before, "hello from db\n")
    machine.write(path, settings)
    rig.upgrade("web")
    assert "drain_secs" not in machine.show("sidecar@web", "StatusText")


def test_a_stop_ends_what_is_left_of_the_old_program_in_its_time(rig: Rig) -> None:
    mesh, machine = rig.mesh, rig.mesh.machine
    start_load(machine, "load-streams")
    old = mesh.pid("db")
    rig.upgrade("db")
    assert machine.run("ps", "-o", "pid=", "-p", str(old)).strip() == str(old)
    machine.systemctl("stop", "sidecar@db")
    assert "drained: cut=20" in machine.journal("sidecar@db")
    assert machine.show("sidecar@db", "ActiveState") == "inactive"
    machine.start("sidecar@db")
    load(machine, "load-streams")


def test_with_workers_neither_a_restart_nor_an_upgrade_refuses_a_caller(rig: Rig) -> None:
    machine = rig.mesh.machine
    machine.write("/etc/connect-sidecar/db.env", "SIDECAR_WORKERS=2\n", mode=0o600)
    machine.systemctl("restart", "sidecar@db")
    start_load(machine, "load-streams")

    def change() -> None:
        rig.upgrade("db")
        assert load(machine, "load-streams")["failed"] == 0
        machine.systemctl("restart", "sidecar@db")

    reports = rig.under_load(change)
    assert [report["failures"] for report in reports.values()] == [[], [], []]
