"""Restarts and a reboot without any control plane: traffic flows, and no key is on a disk in the clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import UPSTREAM, Mesh, federation, workloads

pytestmark = pytest.mark.root

HELLO = "hello from db\n"
SIDECARS = ("db", "web")
SECRET = "/etc/connect-sidecar/{}.state-key"
STATE = "/var/lib/connect-sidecar/{}/state"


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Datacenters, workloads and both sidecars, with a secret each."""
    made = federation(machine)
    workloads(made)
    for name in SIDECARS:
        machine.write(SECRET.format(name), f"{name} has a secret of more than 32 bytes", mode=0o600)
        machine.start(f"sidecar@{name}")
    assert made.get(UPSTREAM) == HELLO
    until(lambda: all(file(machine, name).exists() for name in SIDECARS) or None, "the encrypted state")
    for name in ("dc1", "dc2"):
        machine.systemctl("stop", f"sidecar-datacenter@{name}")
    machine.systemctl("restart", *(f"sidecar@{name}" for name in SIDECARS))
    return made


def file(machine: Machine, name: str) -> Path:
    """Return where the encrypted state of an instance is."""
    return machine.outside(STATE.format(name).replace("/lib/", "/lib/private/"))


def serves_degraded(mesh: Mesh) -> None:
    """Check that a call crosses, and that both sidecars say what they serve from."""
    assert mesh.get(UPSTREAM) == HELLO
    for name in SIDECARS:
        assert "degraded: from the last run" in mesh.machine.show(f"sidecar@{name}", "StatusText")
        status, text = mesh.admin(name, "/ready")
        assert (status, "degraded: from the last run" in text) == (200, True)
        assert "sidecar_degraded 0" not in mesh.admin(name, "/metrics")[1]


def stop(mesh: Mesh) -> None:
    """Stop both sidecars, whose state in memory goes with them."""
    mesh.machine.systemctl("stop", *(f"sidecar@{name}" for name in SIDECARS))


def test_a_restart_without_a_control_plane_serves(mesh: Mesh) -> None:
    mesh.machine.systemctl("restart", *(f"sidecar@{name}" for name in SIDECARS))
    serves_degraded(mesh)


def test_no_key_is_in_any_file_in_the_clear(mesh: Mesh) -> None:
    found = mesh.machine.run(
        "grep", "-rlE", "--binary-files=text", "PRIVATE KEY", "/etc/connect-sidecar", "/var/lib/private",
        "/var/lib/connect-sidecar", "/run", "/tmp", check=False,
    )  # fmt: skip
    # The embedded datacenters keep the keys of their authorities; the sidecars keep nothing.
    assert [path for path in found.split() if "connect-sidecar-datacenter" not in path] == []
    assert file(mesh.machine, "web").stat().st_mode & 0o777 == 0o600


def test_after_a_reboot_without_a_control_plane_it_serves_from_the_encrypted_state(mesh: Mesh) -> None:
    stop(mesh)
    assert mesh.get(UPSTREAM) == ""
    for name in SIDECARS:
        mesh.machine.start(f"sidecar@{name}")
    serves_degraded(mesh)


def test_past_its_age_a_state_is_refused_and_the_reason_is_in_the_status(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write("/etc/connect-sidecar/web.env", "SIDECAR_STATE_MAX_AGE=1\n", mode=0o600)
    machine.systemctl("restart", "--no-block", "sidecar@web")
    until(lambda: "state_too_old" in machine.show("sidecar@web", "StatusText") or None, "the reason")
    until(lambda: mesh.get(UPSTREAM) == "" or None, "callers refused")
    assert machine.show("sidecar@web", "ActiveState") == "activating"
    machine.write("/etc/connect-sidecar/web.env", "", mode=0o600)
    machine.systemctl("restart", "sidecar@web")
    serves_degraded(mesh)


@pytest.mark.last_act
def test_without_the_credential_the_file_is_noise(mesh: Mesh) -> None:
    machine = mesh.machine
    stop(mesh)
    machine.write(SECRET.format("web"), "another secret, of more than 32 bytes too", mode=0o600)
    machine.systemctl("start", "--no-block", "sidecar@web")
    until(lambda: "state_unreadable" in machine.journal("sidecar@web") or None, "the reason")
    assert machine.show("sidecar@web", "ActiveState") == "activating"
    machine.start("sidecar-datacenter@dc1")
    until(lambda: machine.show("sidecar@web", "ActiveState") == "active" or None, "a start with Consul")
