"""The private machine is private: nothing of the real one is touched, and nothing stays behind."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.systemd.boot import boot

pytestmark = pytest.mark.root

PLACES = ("/tmp", "/run", "/etc", "/var", "/opt")


def namespace(process: int | str, name: str) -> str:
    """Which namespace a process is in."""
    return str(Path(f"/proc/{process}/ns/{name}").readlink())


@pytest.mark.usefixtures("namespaces")
def test_what_the_machine_writes_and_wipes_stays_inside_and_ends_with_it(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    mark = f"connect-sidecar-{uuid.uuid4()}"  # what else lies in these places is not of this test
    mounts = Path("/proc/self/mountinfo").read_text()
    with boot() as machine:
        machine.run("bash", "-c", "rm -rf /tmp/* /run/connect-sidecar")
        machine.run("touch", *(f"{place}/{mark}" for place in PLACES))
        assert machine.run("hostname", "private") == ""
        inside = {name: namespace(machine.pid, name) for name in ("mnt", "pid", "net", "cgroup")}
        pid = machine.pid
    assert canary.read_text() == "alive"
    assert [place for place in PLACES if Path(place, mark).exists()] == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert all(namespace("self", name) != link for name, link in inside.items())
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("namespaces")
def test_two_machines_at_once_do_not_see_each_others_units() -> None:
    unit = "[Service]\nExecStart=/bin/sleep infinity\n"
    with boot() as first, boot() as second:
        for machine in (first, second):
            machine.add_unit("sleeper.service", unit)
            machine.start("sleeper")
        first.systemctl("stop", "sleeper")
        assert first.show("sleeper", "ActiveState") == "inactive"
        assert second.show("sleeper", "ActiveState") == "active"
