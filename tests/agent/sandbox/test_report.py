"""What the kernel shows of a process, in words."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from agent.config.settings import resolve
from agent.sandbox.landlock import interface
from agent.sandbox.report import confinement, is_confined, is_started_by_systemd, network, shown

UNIT = "Uid:\t61234\t61234\t61234\t61234\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
BARE = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n"
OWN, SAME = "     61234      61234          1\n", "         0          0 4294967295\n"


def test_it_says_what_the_kernel_shows() -> None:
    confined = ("user 61234", "no capabilities", "no new privileges", "a filter of system calls")
    assert confinement(UNIT, OWN) == ", ".join((*confined, "a user namespace of its own"))
    bare = ("user 0", "41 capabilities", "may gain privileges by a program", "no filter of system calls")
    assert confinement(BARE, SAME) == ", ".join((*bare, "the machine's user namespace"))


def test_what_it_may_do_on_the_network_is_said_with_what_can_keep_it_from_that() -> None:
    rest = "and connects anywhere that the unit's SocketBindDeny= and IPAddressDeny= let it"
    assert network(UNIT, 1024) == f"listens at ports from 1024 on {rest}"
    assert network(BARE, 1024) == network(UNIT, 0) == f"listens at any port {rest}"


def test_confined_is_a_filter_and_no_new_privileges() -> None:
    assert is_confined(UNIT)
    assert not is_confined(BARE)


@pytest.mark.parametrize("landlock", [False, True])
def test_it_reads_a_process_and_says_what_its_settings_ask_for(landlock: bool) -> None:
    settings = resolve(
        {"landlock": ("true",)} if landlock else {}, {}, None, identity_required=False
    ).settings
    assert settings is not None
    text, _ = shown(os.getpid(), settings)
    assert text.startswith(f"user {os.getuid()}, ")
    assert ", listens at " in text
    assert ("reads below /bin, " in text) == (landlock and interface() > 0)


def test_a_process_that_there_is_not() -> None:
    settings = resolve({}, {}, None, identity_required=False).settings
    assert settings is not None
    with pytest.raises(FileNotFoundError):
        shown(2**22 + 1, settings)


def test_systemd_has_started_the_process_that_it_names() -> None:
    environ = {"SYSTEMD_EXEC_PID": "1"}  # inherited from another process
    with subprocess.Popen(["sleep", "60"], env=environ) as child:
        assert not is_started_by_systemd(child.pid)
        child.kill()
    named = ["sh", "-c", "SYSTEMD_EXEC_PID=$$ exec sleep 60"]
    with subprocess.Popen(named) as child:
        wait_for_exec(child.pid)
        assert is_started_by_systemd(child.pid)
        child.kill()


def wait_for_exec(pid: int) -> None:
    """Until the shell has become the program: its environment is new then."""
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
