"""Dials of an app that have to wait, as each over a network does."""

from __future__ import annotations

import pytest

from agent.base.address import Address
from agent.net.dial import Begun, Shun, begin


def late_dials(monkeypatch: pytest.MonkeyPatch) -> list[Begun]:
    """Let no dial be over at once; return those that have begun."""
    dials: list[Begun] = []

    def late(address: Address, shun: Shun) -> Begun | None:
        begun = begin(address, shun)
        if begun is not None:
            begun.connected = False
            dials.append(begun)
        return begun

    monkeypatch.setattr("agent.inbound.app_connection.begin", late)
    return dials
