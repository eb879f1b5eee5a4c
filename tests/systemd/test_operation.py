"""What an operator does to a running instance, and what it then says of itself."""

from __future__ import annotations

import pytest

from agent.sandbox.landlock import interface
from tests.systemd.boot import Machine, until
from tests.systemd.mesh import SIDECAR, UPSTREAM, Mesh, federation, workloads

pytestmark = pytest.mark.root

SETTINGS = "/etc/connect-sidecar/web.toml"


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Both datacenters, the workloads, and the sidecar of web."""
    made = federation(machine)
    workloads(made)
    machine.start("sidecar@web")
    return made


def test_a_reload_changes_what_can_change_and_keeps_the_process(mesh: Mesh) -> None:
    machine, pid = mesh.machine, mesh.pid("web")
    before = machine.outside(SETTINGS).read_text()
    machine.write(SETTINGS, f'{before}upstream = ["db@dc2:9192"]\nworkers = 2\n')
    machine.systemctl("reload", "sidecar@web")
    until(lambda: "workers" in status(mesh) or None, "the new settings")
    until(
        lambda: machine.run("bash", "-c", "</dev/tcp/127.0.0.1/9192 && echo open", check=False) or None, "it"
    )
    machine.write(SETTINGS, f"{before}drain_secs = 3\n")
    machine.systemctl("reload", "sidecar@web")
    until(lambda: "drain_secs" in status(mesh) or None, "the mistake in STATUS")
    assert (mesh.pid("web"), machine.show("sidecar@web", "ActiveState")) == (pid, "active")
    machine.write(SETTINGS, before)
    machine.systemctl("reload", "sidecar@web")
    until(lambda: "drain_secs" not in status(mesh) or None, "good settings again")


def test_a_drain_may_take_longer_than_the_unit_allows(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.add_unit("sidecar@web.service.d/short.conf", "[Service]\nTimeoutStopSec=1\n")
    machine.start("sidecar@db")
    until(lambda: mesh.get(UPSTREAM) or None, "an answer through the mesh")
    held = "exec 3<>/dev/tcp/127.0.0.1/9191; echo held; sleep 4"
    machine.add_unit("holder.service", f"[Service]\nExecStart=/bin/bash -c '{held}'\n")
    machine.start("holder")
    until(lambda: "held" in machine.journal("holder") or None, "a connection through the mesh")
    machine.systemctl("stop", "sidecar@web")
    assert machine.show("sidecar@web", "Result") == "success"
    machine.start("sidecar@web")


def test_an_operators_start_is_never_refused(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write("/etc/connect-sidecar/wrong.toml", "drain_secs = 3\n")
    for _ in range(12):
        machine.systemctl("start", "sidecar@wrong", check=False)
    machine.write("/etc/connect-sidecar/wrong.toml", machine.outside(SETTINGS).read_text())
    machine.systemctl("start", "--no-block", "sidecar@wrong")
    try:  # its ports are those of web's sidecar
        taken = "not ready · listener: cannot listen on"
        until(lambda: machine.show("sidecar@wrong", "StatusText").startswith(taken) or None, "its start")
        assert machine.show("sidecar@wrong", "ActiveState") == "activating"
    finally:
        machine.systemctl("stop", "sidecar@wrong")


def status(mesh: Mesh) -> str:
    """The STATUS of the sidecar of web."""
    return mesh.machine.show("sidecar@web", "StatusText")


def test_the_target_speaks_to_all_instances(mesh: Mesh) -> None:
    machine = mesh.machine
    for name in ("web", "db"):
        machine.start(f"sidecar@{name}")
    before = {name: mesh.pid(name) for name in ("web", "db")}
    machine.systemctl("enable", "--runtime", "sidecar@web", "sidecar@db")
    settings = machine.outside(SETTINGS).read_text()
    machine.write(SETTINGS, f'{settings}upstream = ["db@dc2:9193"]\n')
    machine.systemctl("start", "sidecar.target")
    machine.systemctl("reload", "sidecar.target")
    open_port = "</dev/tcp/127.0.0.1/9193 && echo open"
    until(lambda: machine.run("bash", "-c", open_port, check=False) or None, "the new upstream")
    assert {name: mesh.pid(name) for name in ("web", "db")} == before
    machine.write(SETTINGS, settings)
    machine.systemctl("restart", "sidecar.target")
    assert all(mesh.pid(name) not in (0, before[name]) for name in ("web", "db"))
    for verb, state in (("stop", "inactive"), ("start", "active")):
        machine.systemctl(verb, "sidecar.target")
        for name in ("web", "db"):
            becomes(machine, f"sidecar@{name}", state)


def becomes(machine: Machine, unit: str, state: str) -> None:
    """Wait until the unit is in this state."""
    until(lambda: machine.show(unit, "ActiveState") == state or None, f"{unit} {state}")


def test_the_kernel_holds_it_to_its_files_and_doctor_says_which(mesh: Mesh) -> None:
    if not interface():
        pytest.skip("this kernel has no Landlock")
    machine = mesh.machine
    machine.start("sidecar@web")
    held = "writes below /run/connect-sidecar/web, /var/lib/connect-sidecar/web"
    restricted = [
        line for line in machine.journal("sidecar@web").splitlines() if "sandbox.restricted" in line
    ]
    assert held in restricted[-1]
    said = machine.run(SIDECAR, "doctor", "-config", SETTINGS, check=False)
    (line,) = (line for line in said.splitlines() if line.startswith("ok    sandbox: "))
    assert "no capabilities, no new privileges, a filter of system calls, a user namespace of its own" in line
    assert held in line
