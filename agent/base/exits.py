"""How the process ends: the exit codes of the command line's contract, and the exception that carries one."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes, after sysexits.h where it has one."""

    CLEAN = 0
    FAILED = 1  # the drain deadline passed, or an internal error
    USAGE = 64
    FAR_SIDE = 68  # an upstream: no instance, or it could not be reached, or its app does not answer
    UNAVAILABLE = 69  # Consul or the admin endpoint could not be reached, where the command needs it
    APP_DOWN = 75  # our own app takes no connections
    PERMISSION = 77  # refused by the operating system or by an ACL
    CONFIGURATION = 78


class Exit(Exception):
    """The process cannot go on, for a reason the operator must see: one message, one code, no traceback."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NotYet(Exit):
    """A file that a start needs is not there or not whole, and may be a moment later (agent.awaited)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.CONFIGURATION, message)
