"""Two instances of one unit share nothing but the network, seen from inside one of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.boot import Machine
from tests.systemd.mesh import CURL, PUBLIC_PORT, PYTHON, SIDECAR, WAN_HOST, Mesh, federation, workloads

pytestmark = pytest.mark.root

ATTEMPTS = (
    "drain",
    "list its runtime directory",
    "write its runtime directory",
    "write beside it",
    "read its token",
    "see it in /proc",
    "read its memory",
    "share its port",
    "leave something in /dev/shm",
    "list message queues",
    "signal",
    "signal by descriptor",
)
REFUSALS = {"PermissionError", "FileNotFoundError", "OSError"}
UNITS = ("sidecar@web", "sidecar@db", "sidecar-datacenter@dc1", "sidecar-datacenter@dc2")
OPERATORS = """
[Service]
ExecStartPost=+/bin/sh -c 'cd %t/connect-sidecar/%i && chgrp ops . admin.sock && chmod g+rwx . admin.sock'
"""
OTHER_USER = "[Service]\nUser=sidecar-web-v2\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\n"


@pytest.fixture(scope="module")
def mesh(machine: Machine) -> Mesh:
    """Two datacenters, and the sidecar of db, which has a token and two workers."""
    made = federation(machine)
    workloads(made)
    settings = machine.outside("/etc/connect-sidecar/db.toml")
    settings.write_text(f"{settings.read_text()}workers = 2\n")  # which share its port among themselves
    machine.write("/etc/connect-sidecar/db.token", "5ec7e7\n", mode=0o600)
    machine.run("groupadd", "ops")
    machine.add_unit("sidecar@db.service.d/operators.conf", OPERATORS)
    machine.start("sidecar@db")
    return made


@pytest.fixture(scope="module")
def found(mesh: Mesh) -> dict[str, Any]:
    """What a program in the place of web's sidecar could do to that of db."""
    machine = mesh.machine
    machine.write("/opt/neighbour.py", Path(__file__).with_name("neighbour.py").read_text())
    words = f"{PYTHON} /opt/neighbour.py db {mesh.pid('db')} {WAN_HOST} {PUBLIC_PORT}"
    machine.add_unit("sidecar@web.service.d/neighbour.conf", f"[Service]\nExecStart=\nExecStart={words}\n")
    machine.start("sidecar@web")
    said = machine.journal("sidecar@web").splitlines()
    report: dict[str, Any] = json.loads(next(line for line in said if line.startswith("{")))
    return report


def asked(mesh: Mesh, *groups: str) -> str:
    """The status that an unprivileged user of these groups gets from db's admin socket; 000 is none."""
    user = ("setpriv", "--reuid=65534", "--regid=65534", f"--groups={','.join(('65534', *groups))}")
    path = "/run/connect-sidecar/db/admin.sock"
    form = ("--output", "/dev/null", "--write-out", "%{http_code}")
    return mesh.machine.run(*user, *CURL, "--unix-socket", path, *form, "http://sidecar/ready", check=False)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_one_instance_tries_on_another_is_refused(found: dict[str, Any], attempt: str) -> None:
    assert found[attempt] in REFUSALS


def test_what_was_tried_left_no_trace(mesh: Mesh, found: dict[str, Any]) -> None:
    assert mesh.admin("db", "/ready")[0] == 200
    assert not mesh.machine.outside("/tmp/left").exists()
    assert not mesh.machine.outside("/dev/shm/left").exists()


def test_each_instance_of_either_unit_is_a_user_of_its_own(mesh: Mesh, found: dict[str, Any]) -> None:
    users = [mesh.machine.show(unit, "UID") for unit in UNITS]
    assert len(set(users)) == len(UNITS)
    assert not {"0", "[not set]"} & set(users)


@pytest.mark.parametrize("kind", ["mnt", "ipc", "user"])
def test_each_instance_has_its_own_namespace(mesh: Mesh, found: dict[str, Any], kind: str) -> None:
    pids = ["1", *(mesh.machine.show(unit, "MainPID") for unit in UNITS)]
    seen = {mesh.machine.run("readlink", f"/proc/{pid}/ns/{kind}") for pid in pids}
    assert len(seen) == len(pids)


def test_nothing_listens_on_an_abstract_socket_which_anybody_could_reach(mesh: Mesh) -> None:
    listening = mesh.machine.run("ss", "--no-header", "--listening", "--unix").splitlines()
    names = [line.split()[4] for line in listening]
    assert "/run/connect-sidecar/db/admin.sock" in names
    assert [name for name in names if name.startswith("@")] == []


def test_root_and_the_operators_group_talk_to_it_and_no_other_user(mesh: Mesh) -> None:
    group = mesh.machine.run("getent", "group", "ops").split(":")[2]
    assert mesh.admin("db", "/ready")[0] == 200
    assert asked(mesh, group) == "200"
    assert asked(mesh) == "000"


@pytest.mark.skipif(sys.base_prefix != "/usr", reason="other users may not be able to start this Python")
def test_status_finds_the_instances_that_a_user_may_see_and_names_the_others(mesh: Mesh) -> None:
    group = mesh.machine.run("getent", "group", "ops").split(":")[2]
    assert mesh.machine.run(SIDECAR, "status").startswith("serving")
    for groups, code in (("65534", "77"), (f"65534,{group}", "0")):
        user = f"setpriv --reuid=65534 --regid=65534 --groups={groups}"
        asked_for = f"{user} {SIDECAR} status db >/dev/null; echo $?"
        said = mesh.machine.run("bash", "-c", asked_for)
        assert said.strip() == code


@pytest.mark.parametrize("instance", ["web.v2", "a" * 24, "x:y"])
def test_an_instance_whose_name_makes_no_user_is_not_started(machine: Machine, instance: str) -> None:
    machine.write(f"/etc/connect-sidecar/{instance}.toml", "# all else as it is\n")
    with pytest.raises(AssertionError, match=r"failed because|bad unit file"):
        machine.systemctl("start", f"sidecar@{instance}")


def test_an_instance_with_an_odd_name_is_given_a_user_in_a_drop_in(machine: Machine) -> None:
    machine.add_unit("sidecar@web.v3.service.d/user.conf", OTHER_USER)
    machine.write("/etc/connect-sidecar/web.v3.toml", "# all else as it is\n")
    machine.start("sidecar@web.v3")
    pid = machine.show("sidecar@web.v3", "MainPID")
    assert machine.run("ps", "-o", "user:32=", "-p", pid).strip() == "sidecar-web-v2"
