"""How a failed candidate prints itself."""

from __future__ import annotations

from agent.connections.records import FailedAttempt
from agent.net.dial import DialReason


def test_an_attempt_prints_its_reason() -> None:
    attempt = FailedAttempt(endpoint="db1", address="a:1 (lan)", reason=DialReason.REFUSED, detail="no")
    assert str(attempt) == "db1 at a:1 (lan): connect_refused: no"
