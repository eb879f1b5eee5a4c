"""Fifty changes of the registration a second: what they do not touch goes on, and nothing is left behind.

Five seconds of them, or `CHANGES_SECONDS=20`; `--log-cli-level=INFO` shows the figures. web's sidecar asks
for its registration about once a second, so that most of the changes reach it together.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Any

import pytest

from tests.contract.apps import Conversation, Traffic, ask
from tests.contract.federation import free_port
from tests.scenarios.moves import until
from tests.scenarios.spread import Spread, spread

figures = logging.getLogger("scenarios.figures")

RATE = 50
CHANGES = int(RATE * float(os.getenv("CHANGES_SECONDS", "5")))
KEPT = 20  # connections that live all the while, through each of the upstreams that stay

STEADY: dict[str, dict[str, Any]] = {
    "db": {"DestinationName": "db"},
    "near": {"DestinationName": "near", "DestinationType": "prepared_query"},
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """Two upstreams that stay, and ports for those that come and go."""
    with spread(tmp_path_factory.mktemp("often"), {"db-1": "dc1"}, STEADY) as started:
        query = {"Name": "near", "Service": {"Service": "db", "Connect": True}}
        assert started.federation.dc1.post("/v1/query", query).status == 200
        started.ports |= {f"other-{number}": free_port() for number in range(5)}
        yield started


def open_files(mesh: Spread) -> int:
    """Of web's sidecar, by its own metrics."""
    text = mesh.web.ask("/metrics")[1]
    return int(
        float(next(line for line in text.splitlines() if line.startswith("process_open_fds ")).split()[1])
    )


def status(mesh: Spread) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(mesh.web.ask("/status")[1])
    return answer


def settled(mesh: Spread, names: set[str]) -> bool:
    """Whether web listens for these and no others."""
    rows = status(mesh)["upstreams"]
    binds = {row["bind"] for row in rows if row["listener"] and row["listener"]["listening"]}
    return binds == {f"127.0.0.1:{mesh.ports[name]}" for name in names}


def change(mesh: Spread) -> float:
    """Upstreams come, lead elsewhere and go, so many times; in how many seconds."""
    began = monotonic()
    for number in range(CHANGES):
        other = {"DestinationName": f"db-{number % 3}", "Datacenter": ["dc1", "dc2"][number % 2]}
        mesh.web_with(STEADY | {f"other-{number % 5}": other, f"other-{(number + 1) % 5}": other})
        sleep(max(0.0, began + (number + 1) / RATE - monotonic()))
    return monotonic() - began


def test_changes_leave_the_others_alone_and_no_files_open(mesh: Spread) -> None:
    steady = set(STEADY)
    until(lambda: settled(mesh, steady), 20)
    until(lambda: all(ask(mesh.ports[name]) == "db-1 hello" for name in steady), 40)
    before, taken = open_files(mesh), taken_on(mesh)
    traffic = [Traffic(mesh.ports[name]) for name in STEADY]
    with ExitStack() as stack:
        kept = [stack.enter_context(Conversation(mesh.ports[name])) for name in STEADY for _ in range(KEPT)]
        assert {conversation.ask("one") for conversation in kept} == {"db-1 one"}
        for one in traffic:
            stack.enter_context(one)
        seconds = change(mesh)
        mesh.web_with(STEADY)
        until(lambda: settled(mesh, steady), 20)
        assert {conversation.ask("two") for conversation in kept} == {"db-1 two"}
    assert sum(one.answers[""] for one in traffic) == 0
    assert min(one.answers["db-1 hello"] for one in traffic) > 50
    until(lambda: open_files(mesh) <= before + 2, 10)
    assert ask(mesh.ports["db"]) == "db-1 hello"
    told = (
        "%d changes in %.1f s, %d of them seen by web; %d connections kept, %d made; files open: %d, then %d"
    )
    made = sum(one.answers.total() for one in traffic)
    seen = taken_on(mesh) - taken
    figures.info(told, CHANGES, seconds, seen, len(kept), made, before, open_files(mesh))
    assert seen > 1


def taken_on(mesh: Spread) -> int:
    """Registrations that web's sidecar has gone over to so far."""
    (watch,) = (row for row in status(mesh)["watches"] if row["name"] == "registration")
    return int(watch["changes"])
