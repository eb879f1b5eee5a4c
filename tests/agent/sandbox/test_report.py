"""What the kernel shows of a process, in words."""

from __future__ import annotations

from pathlib import Path

from agent.sandbox.report import confinement, is_confined

UNIT = "Uid:\t61234\t61234\t61234\t61234\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
BARE = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n"
OWN, SAME = "     61234      61234          1\n", "         0          0 4294967295\n"


def test_it_says_what_the_kernel_shows() -> None:
    assert confinement(UNIT, OWN) == (
        "user 61234, no capabilities, no new privileges, a filter of system calls, a user namespace of its own"
    )
    assert confinement(BARE, SAME) == (
        "user 0, 41 capabilities, may gain privileges by a program, no filter of system calls,"
        " the machine's user namespace"
    )


def test_confined_is_a_filter_and_no_new_privileges() -> None:
    assert is_confined(UNIT)
    assert not is_confined(BARE)


def test_it_reads_this_process() -> None:
    status, uid_map = (Path(f"/proc/self/{name}").read_text() for name in ("status", "uid_map"))
    assert confinement(status, uid_map).startswith("user ")
