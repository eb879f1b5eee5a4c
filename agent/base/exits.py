"""How the process ends: the exit codes of the command line's contract, and the exception that carries one."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes, after sysexits.h where it has one."""

    CLEAN = 0
    FAILED = 1  # the drain deadline passed, or an internal error
    USAGE = 64
    UNAVAILABLE = 69  # the control plane, where it was required
    PERMISSION = 77  # of the operating system, or an ACL
    CONFIGURATION = 78


class Exit(Exception):
    """The process cannot go on for a reason its operator must see: one message, one code, no traceback."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
