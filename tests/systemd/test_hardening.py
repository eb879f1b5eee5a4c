"""What `sidecar@.service` takes away is really gone, seen from a program inside the unit."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.boot import CHECKOUT, Machine

pytestmark = pytest.mark.root

UNITS = CHECKOUT / "systemd"
MOST_EXPOSURE = 1.1  # of 10, as systemd-analyze counts
PROBE = """
[Service]
ExecStart=
ExecStart=/opt/connect-sidecar/bin/python /opt/probe.py -config /etc/connect-sidecar/%i.toml
"""


def probed(machine: Machine, instance: str) -> dict[str, Any]:
    """Start the unit with the probe in the sidecar's place, and read its report."""
    machine.write("/opt/probe.py", Path(__file__).with_name("probe.py").read_text())
    machine.add_unit(f"sidecar@{instance}.service.d/probe.conf", PROBE)
    machine.start(f"sidecar@{instance}")
    report = next(
        line for line in machine.journal(f"sidecar@{instance}").splitlines() if line.startswith("{")
    )
    found: dict[str, Any] = json.loads(report)
    return found


@pytest.fixture(scope="module")
def report(machine: Machine) -> dict[str, Any]:
    """The report of an instance with neither token nor socket."""
    return probed(machine, "plain")


@pytest.mark.parametrize(
    "act",
    ["writable and executable memory", "netlink", "namespaces", "write /etc", "write /var", "read /root"],
)
def test_an_act_the_unit_forbids_fails(report: dict[str, Any], act: str) -> None:
    assert report[act] in {"PermissionError", "OSError"}


def test_it_runs_as_nobody_in_particular_without_capabilities_or_core_dumps(report: dict[str, Any]) -> None:
    assert not report["root"]
    assert report["capabilities"] == 0
    assert report["core"] == 0
    # Without CAP_SYS_RESOURCE outside, systemd cannot go above the limit it was itself started with.
    assert report["files"] == min(524288, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_it_has_a_runtime_directory_of_its_own_for_the_admin_socket(report: dict[str, Any]) -> None:
    assert report["write the runtime directory"] == ""
    assert report["runtime directory"] == "/run/connect-sidecar/plain"
    assert report["admin"] == "unix:/run/connect-sidecar/plain/admin.sock"


def test_it_is_told_its_settings_and_its_watchdog(report: dict[str, Any]) -> None:
    assert report["arguments"] == ["-config", "/etc/connect-sidecar/plain.toml"]
    assert report["watchdog"] == 30_000_000


def test_its_memory_is_the_c_librarys_which_gives_it_back(report: dict[str, Any]) -> None:
    assert report["allocator"] == "malloc"


def test_without_a_token_file_the_credential_is_blank(report: dict[str, Any]) -> None:
    assert report["token"].strip() == ""


def test_the_token_arrives_as_a_credential_from_a_file_only_root_can_read(machine: Machine) -> None:
    machine.write("/etc/connect-sidecar/secret.token", "5ec7e7\n", mode=0o600)
    assert probed(machine, "secret")["token"] == "5ec7e7\n"


def test_the_socket_hands_in_the_public_listener_by_name(machine: Machine) -> None:
    machine.add_unit(
        "sidecar@held.socket.d/listen.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:21999\n"
    )
    machine.start("sidecar@held.socket")
    assert probed(machine, "held")["sockets"] == "public"


def test_variables_of_the_instance_are_stronger_than_the_units(machine: Machine) -> None:
    machine.write("/etc/connect-sidecar/moved.env", "SIDECAR_ADMIN_BIND=127.0.0.1:19001\n")
    assert probed(machine, "moved")["admin"] == "127.0.0.1:19001"


def test_systemd_finds_nothing_wrong_with_the_units(machine: Machine) -> None:
    machine.run(
        *("systemd-analyze", "verify", "--man=no"),  # whose pages the package installs
        *("sidecar@x.service", "sidecar@x.socket", "sidecar-datacenter@x.service", "sidecar.target"),
    )


@pytest.mark.parametrize("unit", ["sidecar@.service", "sidecar-datacenter@.service"])
def test_the_exposure_systemd_measures_is_small(namespaces: None, unit: str) -> None:
    measured = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSURE * 10:.0f}",
            str(UNITS / unit),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert measured.returncode == 0, measured.stdout
