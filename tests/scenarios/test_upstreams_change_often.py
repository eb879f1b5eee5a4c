"""Fifty changes of the registration a second: what they do not touch goes on, and nothing is left behind."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from tests.contract.apps import Conversation, Traffic, ask
from tests.contract.federation import free_port
from tests.scenarios.spread import Spread, spread

SECONDS = 5.0
RATE = 50

STEADY: dict[str, dict[str, Any]] = {"db": {"DestinationName": "db"}}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """One upstream that stays, and ports for those that come and go."""
    with spread(tmp_path_factory.mktemp("often"), {"db-1": "dc1"}, STEADY) as started:
        started.ports |= {f"other-{number}": free_port() for number in range(5)}
        yield started


def open_files(mesh: Spread) -> int:
    """Of web's sidecar, by its own metrics."""
    text = mesh.web.ask("/metrics")[1]
    return int(
        float(next(line for line in text.splitlines() if line.startswith("process_open_fds ")).split()[1])
    )


def settled(mesh: Spread, names: set[str]) -> bool:
    """Whether web listens for these and no others."""
    rows = json.loads(mesh.web.ask("/status")[1])["upstreams"]
    binds = {row["bind"] for row in rows if row["listener"]["listening"]}
    return binds == {f"127.0.0.1:{mesh.ports[name]}" for name in names}


def wait_until_settled(mesh: Spread, names: set[str]) -> None:
    deadline = monotonic() + 20
    while not settled(mesh, names):
        assert monotonic() < deadline
        sleep(0.05)


def test_changes_leave_the_others_alone_and_no_files_open(mesh: Spread) -> None:
    wait_until_settled(mesh, {"db"})
    before = open_files(mesh)
    turns = itertools.cycle(range(5))
    with Conversation(mesh.ports["db"]) as kept, Traffic(mesh.ports["db"]) as traffic:
        assert kept.ask("one") == "db-1 one"
        began = monotonic()
        for change in itertools.count(1):
            number = next(turns)
            other = {"DestinationName": f"db-{change % 3}", "Datacenter": ["dc1", "dc2"][change % 2]}
            mesh.web_with(STEADY | {f"other-{number}": other, f"other-{(number + 1) % 5}": other})
            if monotonic() - began > SECONDS:
                break
            sleep(max(0.0, began + change / RATE - monotonic()))
        assert change > 0.6 * SECONDS * RATE
        mesh.web_with(STEADY)
        wait_until_settled(mesh, {"db"})
        assert kept.ask("two") == "db-1 two"
    assert traffic.answers[""] == 0
    assert traffic.answers["db-1 hello"] > 50
    deadline = monotonic() + 10
    while open_files(mesh) > before + 2:
        assert monotonic() < deadline, (open_files(mesh), before)
        sleep(0.1)
    assert ask(mesh.ports["db"]) == "db-1 hello"
