"""The command to run next, for each event that is an error."""

from __future__ import annotations

from agent.base.exits import ExitCode

_DOCTOR, _STATUS, _CHECK = "sidecar doctor", "sidecar status", "sidecar check"
_ROTATE = "sidecar rotate"  # asks Consul at once, and says what it answers

NEXT = {
    "admin.failed": _DOCTOR,
    "admission.exhausted": _STATUS,
    "crashed": _DOCTOR,
    "credentials.rejected": _DOCTOR,
    "credentials.unservable": _ROTATE,
    "deny_list.unusable": _CHECK,
    "intentions.too_old": _DOCTOR,
    "internal_error": _DOCTOR,
    "leaf.churning": _DOCTOR,
    "listening.failed": "ss -ltnp",  # says which process has the address
    "roots.unreadable": _DOCTOR,
    "settings.refused": _CHECK,
    "token.unusable": _DOCTOR,
    "upgrade.failed": _CHECK,
    "watchdog.unfed": _STATUS,
    "worker.ended": _STATUS,
    "worker.mismatch": "systemctl restart 'sidecar@*'",
}
AFTER_EXIT = {
    ExitCode.USAGE: "sidecar run -h",
    ExitCode.CONFIGURATION: _CHECK,
    ExitCode.PERMISSION: _DOCTOR,
    ExitCode.UNAVAILABLE: _DOCTOR,
}


def next_step(event: str) -> str:
    """Return the command to run after an event that is an error; empty for any other."""
    return NEXT.get(event, "")


def after_exit(code: ExitCode) -> str:
    """Return the command to run after an end with that code."""
    return AFTER_EXIT.get(code, _DOCTOR)
