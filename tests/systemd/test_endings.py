"""How a unit ends when it cannot serve: the exit status, and whether systemd tries again."""

from __future__ import annotations

import json

import pytest

from tests.systemd.boot import Machine, until
from tests.systemd.mesh import API, QUICK, Mesh, federation, workloads

pytestmark = pytest.mark.root

LATE = {"Name": "late", "Port": 8090, "Connect": {"SidecarService": {"Port": 21090}}}


def stubborn(machine: Machine, instance: str) -> tuple[str, str, str]:
    """Start an instance that cannot start: its exit status, state and number of restarts."""
    machine.systemctl("start", f"sidecar@{instance}", check=False)
    shown = (
        machine.show(f"sidecar@{instance}", name) for name in ("ExecMainStatus", "ActiveState", "NRestarts")
    )
    status, state, restarts = shown
    return status, state, restarts


def test_wrong_settings_fail_once_with_78_and_say_why(machine: Machine) -> None:
    machine.write("/etc/connect-sidecar/wrong.toml", 'sidecar_for = "web"\ndrain_secs = 3\n')
    assert stubborn(machine, "wrong") == ("78", "failed", "0")
    journal = machine.journal("sidecar@wrong")
    assert "drain_secs" in journal
    assert "Traceback" not in journal
    (line,) = machine.at_priority("sidecar@wrong.service", "err")
    assert line.startswith("[ERROR] sidecar.process: exit: code=78 reason=configuration detail=")


def test_by_journalds_own_protocol_each_field_of_the_last_event_can_be_asked_for(machine: Machine) -> None:
    settings = 'sidecar_for = "web"\nlog_format = "journald"\ndrain_secs = 3\n'
    machine.write("/etc/connect-sidecar/named.toml", settings)
    assert stubborn(machine, "named") == ("78", "failed", "0")
    asked = ("SIDECAR_EVENT=exit", "SIDECAR_REASON=configuration", "_SYSTEMD_UNIT=sidecar@named.service")
    (line,) = machine.run("journalctl", "--quiet", "--output=json", *asked).splitlines()
    entry = json.loads(line)
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("3", "sidecar")
    assert "drain_secs" in entry["SIDECAR_DETAIL"]
    assert entry["SIDECAR_NEXT"] == "sidecar check"
    assert entry["MESSAGE"].startswith("[ERROR] sidecar.process: exit: code=78 ")


def test_a_missing_settings_file_fails_once_with_78(machine: Machine) -> None:
    assert stubborn(machine, "absent") == ("78", "failed", "0")
    assert "/etc/connect-sidecar/absent.toml" in machine.journal("sidecar@absent")


def test_a_file_that_is_not_there_yet_is_waited_for_and_tried_again(machine: Machine) -> None:
    settings = 'sidecar_for = "web"\nhttp_addr = "127.0.9.9:8500"\ndeny_file = "/run/later/denied"\n'
    machine.write("/etc/connect-sidecar/filed.toml", f"{settings}start_timeout = 3\n")
    machine.add_unit("sidecar@filed.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    machine.systemctl("start", "--no-block", "sidecar@filed")
    missing = "deny_file: /run/later/denied cannot be read: No such file or directory"
    awaited = f"starting · {missing} · gives up after 3 s"
    until(lambda: machine.show("sidecar@filed", "StatusText") == awaited or None, "the reason in STATUS")
    until(lambda: int(machine.show("sidecar@filed", "NRestarts")) >= 1 or None, "a restart")
    assert "exit: code=69 reason=unavailable" in machine.journal("sidecar@filed")
    machine.write("/run/later/denied", "")
    until(lambda: "registration" in machine.show("sidecar@filed", "StatusText") or None, "it was read")
    machine.systemctl("stop", "sidecar@filed", check=False)


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Both datacenters with the workloads; no sidecar."""
    made = federation(machine)
    workloads(made)
    return made


def test_it_is_not_started_before_it_can_serve(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.systemctl("stop", "sidecar-datacenter@dc1")
    machine.systemctl("start", "--no-block", "sidecar@web")
    until(lambda: "listening" in machine.journal("sidecar@web") or None, "the admin endpoint")
    assert mesh.admin("web", "/ready")[0] == 503
    assert machine.show("sidecar@web", "ActiveState") == "activating"
    machine.start("sidecar-datacenter@dc1")
    until(lambda: machine.show("sidecar@web", "ActiveState") == "active" or None, "a started sidecar")
    assert mesh.admin("web", "/ready")[0] == 200


def test_a_service_that_is_registered_later_is_waited_for_with_the_reason_in_its_status(mesh: Mesh) -> None:
    machine = mesh.machine
    machine.write(
        "/etc/connect-sidecar/late.toml", f'sidecar_for = "late"\nhttp_addr = "{API["dc1"]}"\n{QUICK}'
    )
    machine.systemctl("start", "--no-block", "sidecar@late")
    until(lambda: "'late'" in machine.show("sidecar@late", "StatusText") or None, "the reason in STATUS")
    assert machine.show("sidecar@late", "StatusText").startswith("starting · registration: ")
    assert machine.show("sidecar@late", "ActiveState") == "activating"
    mesh.call("dc1", "PUT", "/v1/agent/service/register", LATE)
    until(lambda: machine.show("sidecar@late", "ActiveState") == "active" or None, "a started sidecar")
    assert machine.show("sidecar@late", "NRestarts") == "0"
    machine.systemctl("stop", "sidecar@late")


def test_what_consul_refuses_for_good_ends_it_with_69_and_is_tried_again(mesh: Mesh) -> None:
    machine = mesh.machine
    settings = f'sidecar_for = "nobody"\nhttp_addr = "{API["dc1"]}"\nstart_timeout = 0.3\n'
    machine.write("/etc/connect-sidecar/nobody.toml", settings)
    machine.add_unit("sidecar@nobody.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    machine.systemctl("start", "sidecar@nobody", check=False)
    until(lambda: int(machine.show("sidecar@nobody", "NRestarts")) >= 2 or None, "two restarts")
    machine.systemctl("stop", "sidecar@nobody", check=False)
    assert "'nobody'" in machine.journal("sidecar@nobody")


def test_a_start_may_take_longer_than_the_unit_allows(mesh: Mesh) -> None:
    machine = mesh.machine
    settings = f'sidecar_for = "absent"\nhttp_addr = "{API["dc1"]}"\nstart_timeout = 0\n'
    machine.write("/etc/connect-sidecar/patient.toml", settings)
    machine.add_unit("sidecar@patient.service.d/short.conf", "[Service]\nTimeoutStartSec=4\n")
    machine.systemctl("start", "--no-block", "sidecar@patient")
    until(lambda: machine.age("sidecar@patient") > 7 or None, "seven seconds of its life")
    assert machine.show("sidecar@patient", "ActiveState") == "activating"
    assert machine.show("sidecar@patient", "NRestarts") == "0"
    machine.systemctl("stop", "sidecar@patient")


def test_without_consul_it_ends_with_69_and_is_tried_again(machine: Machine) -> None:
    settings = 'sidecar_for = "web"\nhttp_addr = "127.0.9.9:8500"\nstart_timeout = 0.3\n'
    machine.write("/etc/connect-sidecar/lonely.toml", settings)
    machine.add_unit("sidecar@lonely.service.d/fast.conf", "[Service]\nRestartSec=100ms\n")
    machine.systemctl("start", "sidecar@lonely", check=False)
    until(lambda: int(machine.show("sidecar@lonely", "NRestarts")) >= 2 or None, "two restarts")
    machine.systemctl("stop", "sidecar@lonely", check=False)
    assert "127.0.9.9:8500" in machine.journal("sidecar@lonely")
