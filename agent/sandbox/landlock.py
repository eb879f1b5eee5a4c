"""Has the kernel hold the rules for this process and all that it starts, for good: landlock(7), Linux 5.13.

Best effort: a kernel that knows less holds less, and one without Landlock nothing. No package is needed for
three system calls; `ctypes` is loaded with trio.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from agent.sandbox.rules import Rules

# linux/landlock.h. The numbers of the calls are the same on every architecture but alpha.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1 << 0  # LANDLOCK_CREATE_RULESET_VERSION
PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, MAKE_CHAR, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 6, 1 << 7, 1 << 8
MAKE_FIFO, MAKE_BLOCK, MAKE_SYM, REFER, TRUNCATE = 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = WRITE_FILE | REMOVE_DIR | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
# MAKE_SOCK and REMOVE_FILE (of a socket that is left over) stay open: rules.py says why.
HANDLED = READ | WRITE | MAKE_CHAR | MAKE_BLOCK
SINCE = {REFER: 2, TRUNCATE: 3}  # the version of the interface that knows a right
DEVICES = Path("/dev")  # null and the like are written to
NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS, prctl(2)
O_PATH = 0o10000000


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr, the part of the first version."""

    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class Unrestricted(Exception):
    """The kernel does not hold the rules; the text says why."""


def interface() -> int:
    """Return the version of the kernel's interface; 0 where it cannot be used."""
    return max(0, int(_libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))


def known(rights: int, version: int) -> int:
    """Return those of the rights that this version of the interface knows."""
    return rights & ~sum(right for right, since in SINCE.items() if since > version)


def restrict(rules: Rules) -> int:
    """Have the kernel hold the rules from now on; return the version of its interface. Raises Unrestricted.

    It holds for this thread and what it starts, so it has to be called before there is another. A program
    that the service is handed over to inherits the rules and adds its own; the kernel takes sixteen layers.
    """
    version = interface()
    if not version:  # ENOSYS, EOPNOTSUPP: not built, not switched on at boot; EPERM: a filter of system calls
        raise Unrestricted(f"Landlock cannot be used: {os.strerror(ctypes.get_errno())}")
    handled = known(HANDLED, version)
    ruleset = _Ruleset(handled)
    descriptor = _call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    try:
        _allow(descriptor, rules.readable, known(READ, version))
        _allow(descriptor, (*rules.writable, DEVICES), known(READ | WRITE, version))
        if _libc().prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
            raise Unrestricted(f"prctl: {os.strerror(ctypes.get_errno())}")
        _call(RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    return version


def _allow(ruleset: int, places: Iterable[Path], rights: int) -> None:
    """Allow the rights below each place that there is."""
    for place in places:
        try:
            descriptor = os.open(place, O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # nothing to read there, now or later
        try:
            here = rights if place.is_dir() else rights & OF_A_FILE
            rule = _Beneath(here, descriptor)
            _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise Unrestricted(f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
