"""What a program in the sidecar's place cannot do on the network: other ports, other addresses.

Files and memory are in `test_hardening.py`, other instances in `test_neighbours.py`. docs/security.md says
which mechanism holds what.
"""

from __future__ import annotations

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import PYTHON
from tests.systemd.probe import ELSEWHERE, LISTENED_AT
from tests.systemd.test_hardening import probed
from tests.systemd.test_unix_sockets import drop_in

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def listened(machine: Machine) -> Machine:
    """A machine with another address, where something listens."""
    machine.run("ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo")
    words = f"{PYTHON} -m http.server --bind 0.0.0.0 {LISTENED_AT}"
    machine.add_unit("elsewhere.service", f"[Service]\nExecStart={words}\n")
    machine.start("elsewhere")
    knock = f"</dev/tcp/{ELSEWHERE}/{LISTENED_AT} && echo open"
    until(lambda: machine.run("bash", "-c", knock, check=False) or None, "a listener")
    return machine


def test_without_a_drop_in_only_ports_below_1024_are_out_of_its_reach(listened: Machine) -> None:
    report = probed(listened, "free")
    assert report["listen below 1024"] == "PermissionError"
    assert [report["listen at another port"], report["connect elsewhere"]] == ["", ""]


def test_with_the_drop_in_of_the_operators_page_it_connects_to_the_mesh_and_nowhere_else(
    listened: Machine,
) -> None:
    text = drop_in("the mesh is 10.0.0.0/8").replace("10.0.0.0/8", "192.168.0.0/16")
    listened.add_unit("sidecar@bound.service.d/network.conf", text)
    report = probed(listened, "bound")
    assert report["connect to this machine"] == ""
    if "BPF/cgroup firewalling" in listened.run("journalctl", "--no-pager", "--quiet", "_PID=1"):
        pytest.skip("this kernel has no BPF for control groups")
    assert report["connect elsewhere"] in ("PermissionError", "TimeoutError")  # its packets are dropped


def test_with_the_drop_in_it_listens_at_the_named_ports_and_at_no_other(listened: Machine) -> None:
    if "+BPF_FRAMEWORK" not in listened.run("systemctl", "--version"):
        pytest.skip("this systemd is built without BPF_FRAMEWORK, as Debian's is")
    listened.add_unit("sidecar@ports.service.d/network.conf", drop_in("the mesh is 10.0.0.0/8"))
    assert probed(listened, "ports")["listen at another port"] == "PermissionError"
