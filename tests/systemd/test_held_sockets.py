"""With socket units for every listener no act refuses a caller, and those that change none reset none."""

from __future__ import annotations

import pytest

from tests.systemd.boot import Machine
from tests.systemd.under_load import FULL, STEADY, STREAMS, Rig, asked, made

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def rig(machine: Machine) -> Rig:
    """Datacenters, workloads and both sidecars, whose listeners socket units hold."""
    machine.add_unit("sidecar@.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    held = made(machine, dict.fromkeys(FULL, asked("RESTARTS") or 1), asked("RATE") or 50)
    held.take_sockets()
    return held


def test_the_sockets_are_those_of_systemd(rig: Rig) -> None:
    for name in ("db", "web"):
        status = rig.mesh.admin(name, "/status")[1]
        assert '"listening": true' in status
        assert "socket_" not in status
        assert rig.mesh.machine.show(f"sidecar@{name}.socket", "SubState") == "running"


@pytest.mark.parametrize("instance", ["db", "web"])
@pytest.mark.parametrize("act", list(FULL))
def test_no_act_refuses_a_caller(rig: Rig, act: str, instance: str) -> None:
    noticed = rig.noticed(act, instance)
    assert noticed.good
    if act in STEADY:
        assert noticed.streams is not None
        assert noticed.streams["calls"] == STREAMS
    if act != "kill":
        assert noticed.failures == [[], [], []]
