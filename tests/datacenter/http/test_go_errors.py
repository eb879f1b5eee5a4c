"""Why a dial failed, in Go's words."""

from __future__ import annotations

import socket

import pytest
import trio

from datacenter.http.go_errors import dial_failure


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def _hidden(error: Exception, cause: BaseException) -> Exception:
    error.__context__ = cause
    return error


REFUSED = ConnectionRefusedError(111, "Connection refused")
WHY: dict[str, list[Exception]] = {
    "connect: connection refused": [
        REFUSED,
        _caused(OSError("all attempts failed"), REFUSED),
        _hidden(OSError("all attempts failed"), REFUSED),
        _caused(OSError("all"), ExceptionGroup("both", [OSError(113, "No route to host"), REFUSED])),
    ],
    "read: connection reset by peer": [ConnectionResetError(104, "Connection reset by peer")],
    "i/o timeout": [trio.TooSlowError(), TimeoutError(110, "Connection timed out")],
    "No route to host": [OSError(113, "No route to host")],
    "strange": [ValueError("strange")],
}


@pytest.mark.parametrize(("why", "error"), [(why, error) for why, errors in WHY.items() for error in errors])
def test_why(why: str, error: Exception) -> None:
    assert dial_failure("10.0.0.1:80", error) == f"dial tcp 10.0.0.1:80: {why}"


def test_a_name_nobody_has() -> None:
    error = socket.gaierror(-2, "Name or service not known")
    assert dial_failure("db.invalid:80", error) == "dial tcp: lookup db.invalid: no such host"
