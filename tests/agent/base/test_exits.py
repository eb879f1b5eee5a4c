"""Exit codes are a contract."""

from __future__ import annotations

from agent.base.exits import Exit, ExitCode


def test_the_codes_stay_what_they_are() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "CLEAN": 0,
        "FAILED": 1,
        "USAGE": 64,
        "FAR_SIDE": 68,
        "UNAVAILABLE": 69,
        "APP_DOWN": 75,
        "PERMISSION": 77,
        "CONFIGURATION": 78,
    }


def test_an_exit_carries_one_message() -> None:
    error = Exit(ExitCode.PERMISSION, "no")
    assert (error.code, error.message, str(error)) == (77, "no", "no")
