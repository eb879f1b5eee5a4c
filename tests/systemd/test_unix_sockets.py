"""An upstream on a unix socket refuses no app while the sidecar restarts or is killed, as README.md says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import API, Mesh, federation, install, load, start_load, workloads

pytestmark = pytest.mark.root

README = Path(__file__).resolve().parents[2] / "systemd/README.md"
TIMES = 3
RATE = "50"
FIXED, DYNAMIC = "with a user of its own", "in a directory of the workload's"
SOCKETS = {FIXED: "/run/connect-sidecar/web/db.sock", DYNAMIC: "/run/web/db.sock"}


def drop_in(about: str) -> str:
    """Return the drop-in of the operator's page whose comment says this."""
    blocks = README.read_text().split("```ini\n")[1:]
    (found,) = (block.partition("```")[0] for block in blocks if about in block.replace("\n# ", " "))
    return found


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """The mesh, a workload with a user and a directory of its own, and no sidecar of web."""
    machine.run("groupadd", "web")
    for user in ("web-app", "web-sidecar"):
        machine.run("useradd", "--system", "--no-create-home", "--gid", "web", user)
    made = federation(machine)
    workloads(made)
    machine.add_unit("sidecar@.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    machine.start("sidecar@db")
    beside = "[Service]\nUser=web-app\nGroup=web\nRuntimeDirectory=web\nRuntimeDirectoryMode=2770\n"
    machine.add_unit("web-app.service", f"{beside}ExecStart=/usr/bin/sleep infinity\n")
    machine.start("web-app")
    return made


@pytest.fixture(params=list(SOCKETS))
def app(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[str]:
    """The unit of an app that calls db over a unix socket, with the drop-in of one of two ways."""
    machine, socket = mesh.machine, SOCKETS[request.param]
    machine.add_unit("sidecar@web.service.d/socket.conf", drop_in(request.param))
    settings = f'sidecar_for = "web"\nhttp_addr = "{API["dc1"]}"\nupstream = ["db@dc2:unix:{socket}"]\n'
    machine.write("/etc/connect-sidecar/web.toml", f"{settings}drain_seconds = 5\nleave_seconds = 0\n")
    install(machine, "load-unix", f"unix://{socket}", RATE)
    machine.add_unit("load-unix.service.d/app.conf", "[Service]\nUser=web-app\nGroup=web\n")
    machine.start("sidecar@web")
    yield "load-unix"
    machine.systemctl("stop", "sidecar@web", "load-unix")


def test_no_restart_and_no_kill_refuses_an_app_at_a_unix_socket(mesh: Mesh, app: str) -> None:
    machine = mesh.machine
    start_load(machine, app)
    for _ in range(TIMES):
        machine.systemctl("restart", "sidecar@web")
    assert (report := load(machine, app))["failures"] == []
    start_load(machine, app)
    for _ in range(TIMES):
        before = mesh.pid("web")
        machine.run("kill", "-KILL", str(before))
        until(lambda: mesh.pid("web") not in (0, before) or None, "another process")  # noqa: B023 - at once
        until(lambda: machine.show("sidecar@web", "ActiveState") == "active" or None, "it serves")
    kinds = load(machine, app)["kinds"]
    assert report["calls"] > 50
    assert not {"ConnectionRefusedError", "FileNotFoundError"} & set(kinds)
