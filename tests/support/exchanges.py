"""The exchanges that tasks of connections begin or resume: those that the relay does not serve alone."""

from __future__ import annotations

import pytest

from agent.inbound import http_connection
from agent.inbound.exchange import Exchange


def watched_exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    made: list[Exchange] = []

    def make(*args: object) -> Exchange:
        made.append(Exchange(*args))  # type: ignore[arg-type]  # as it is called
        return made[-1]

    monkeypatch.setattr(http_connection, "Exchange", make)
    return made
