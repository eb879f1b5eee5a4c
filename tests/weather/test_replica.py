"""The age of the replica grows within seconds where it is told, and is over when the primary is back.

Beside two embedded datacenters the replication is frozen and the WAN is cut by a switch; beside two real ones
a cable is cut.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.contract.federation import consul_binary, free_port, running
from tests.contract.processes import process
from tests.weather.sites import ask, two_sites

EXACT = "/v1/connect/intentions/exact?destination=db&source="
FAULTS = "/v1/internal/faults"
EXPLAIN = ("explain", "-source", "web@dc1", "-destination", "db")
SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Db:
    """A sidecar of db in the secondary, and how commands are run beside it."""

    admin: Path
    flags: Sequence[str]
    prefix: Sequence[str]

    def replica(self) -> dict[str, Any]:
        """What `/status` says of the replica of the intentions; empty before anything."""
        status, text = ask(self.admin, "GET", "/status")
        replica = json.loads(text).get("replica") if status == 200 else None
        return dict(replica["intentions"]) if replica else {}

    def metric(self) -> float:
        """What the metric says of its age, in seconds."""
        (age,) = re.findall(
            r'^sidecar_replica_age_seconds\{of="intentions"\} (\S+)$',
            ask(self.admin, "GET", "/metrics")[1],
            re.MULTILINE,
        )
        return float(age)

    def said(self, *words: str) -> str:
        """What a command prints."""
        command = [*self.prefix, sys.executable, "-m", "agent", *words, *self.flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr


@contextmanager
def sidecar(directory: Path, http_addr: str, prefix: Sequence[str] = ()) -> Iterator[Db]:
    """Running until the end of the block."""
    admin = directory / "admin.sock"
    flags = ["-service", "db", "-http-addr", http_addr, "-admin-bind", f"unix:{admin}"]
    flags += ["-listen", f"127.0.0.1:{free_port()}", "-service-addr", "127.0.0.1:9"]
    command = [*prefix, sys.executable, "-m", "agent", "run", *flags]
    with process(command, directory / "db.log"):
        yield Db(admin=admin, flags=flags, prefix=prefix)


def until(true: Callable[[], object], what: str) -> None:
    deadline = monotonic() + SECONDS
    while not true():
        assert monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        sleep(0.2)  # a poll of another process; there is nothing to wait on


def is_current(db: Db) -> bool:
    return bool(db.replica().get("state") == "current")


def age_grows_and_clears(db: Db, state: str, resume: Callable[[], None]) -> None:
    """See the state everywhere, the age growing; and after `resume` that it is over."""
    until(lambda: db.replica()["state"] == state, f"the replica is {state}")
    before, metric = db.replica()["confirmed_seconds_ago"], db.metric()
    until(lambda: db.replica()["confirmed_seconds_ago"] > before + 2, "the age grows")
    assert db.metric() > metric + 1
    doctor = db.said("doctor")
    assert re.search(rf"warn\s+replica: {state}", doctor), doctor
    assert re.search(r"last said the same of .*intentions \d+ s", doctor), doctor
    assert state in db.said(*EXPLAIN)  # of Consul, which tells no age
    explain = db.said(*EXPLAIN, "-running")
    assert re.search(rf"\d+ s since .*primary dc1, {state}", explain), explain
    age = db.replica()["confirmed_seconds_ago"]
    resume()
    until(lambda: is_current(db), "the replica is current again")
    assert db.replica()["confirmed_seconds_ago"] < age
    assert "the primary dc1 says the same" in db.said(*EXPLAIN)


def test_a_frozen_replication_and_a_cut_wan_are_seen_and_end(tmp_path: Path) -> None:
    with running("embedded", tmp_path, {"dc2": ["-enable-faults"]}) as federation:
        dc1, dc2 = federation

        def fault(**body: object) -> None:
            assert dc2.put(FAULTS, body).status == 200

        with sidecar(tmp_path, dc2.url) as db:
            until(lambda: is_current(db), "the replica is compared")
            fault(FrozenReplication=True)
            assert dc1.put(f"{EXACT}web", {"Action": "deny"}).status == 200
            age_grows_and_clears(db, "behind", fault)
            fault(WanCut=True)
            age_grows_and_clears(db, "unreachable", fault)


@pytest.mark.consul
@pytest.mark.root
@pytest.mark.skipif(consul_binary() is None, reason="no consul binary")
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces take root, and ip"
)
def test_a_cable_that_is_cut_between_two_real_datacenters(tmp_path: Path) -> None:
    with two_sites(tmp_path) as (dc1, dc2), sidecar(tmp_path, f"unix://{dc2.api}", dc2.inside()) as db:
        until(lambda: is_current(db), "the replica is compared")
        dc1.cut()
        dc1.call("PUT", f"{EXACT}web", {"Action": "deny"})
        age_grows_and_clears(db, "unreachable", dc1.mend)
        until(
            lambda: dc2.call("GET", "/v1/connect/intentions/match?by=destination&name=db")["db"], "it is here"
        )
