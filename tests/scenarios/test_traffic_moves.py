"""Faults of a whole mesh: traffic moves to the failover target within two seconds, and back after the hold.

New connections one after the other all the while. A connection whose request was under way when its instance
was killed is cut, as it must be; no other is lost. Times are those of web's sidecar, so that a hold is a hold
on its clock whatever the machine is doing. `--log-cli-level=INFO` shows the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.contract.apps import Conversation, Traffic, ask
from tests.scenarios.moves import LOADED, Moves, Toll, tolled, until
from tests.scenarios.spread import Spread, spread, wait_until_ready

figures = logging.getLogger("scenarios.figures")

HOLD = 2.0
HELD = timedelta(seconds=HOLD)
CONFIG: dict[str, Any] = {
    "failover": [{"datacenter": "dc2"}],
    "failover_hold": f"{HOLD:g}s",
    "passive_health_check": {"interval": "10s", "max_failures": 1, "base_ejection_time": "1s"},
}
UPSTREAMS: dict[str, dict[str, Any]] = {
    "db": {"DestinationName": "db", "Config": CONFIG},
    "db1": {"DestinationName": "db", "Datacenter": "dc1"},
    "db2": {"DestinationName": "db", "Datacenter": "dc2"},
    "query1": {"DestinationName": "near", "DestinationType": "prepared_query"},
    "query2": {"DestinationName": "near", "DestinationType": "prepared_query"},
    "query3": {"DestinationName": "near", "DestinationType": "prepared_query"},
}
LOCAL = ("db-1", "db-2")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """Two instances here, one there, one query for all of them."""
    instances = {"db-1": "dc1", "db-2": "dc1", "db-far": "dc2"}
    with spread(tmp_path_factory.mktemp("spread"), instances, UPSTREAMS) as started:
        query = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "Connect": True}
        answer = started.federation.dc1.post("/v1/query", {"Name": "near", "Service": query})
        assert answer.status == 200
        yield started


def served_by(mesh: Spread, *names: str) -> Callable[[], bool]:
    return lambda: ask(mesh.ports["db"]) in {f"{name} hello" for name in names}


def come_back(mesh: Spread) -> None:
    """Everything as at the beginning: passing in the catalog, active in web."""
    for name in LOCAL:
        wait_until_ready(mesh.instances[name].sidecar)
        mesh.instances[name].check("pass")
    mesh.federation.dc1.until("/v1/health/connect/db?passing", lambda rows: len(rows) == len(LOCAL))
    until(lambda: usable(mesh) == set(LOCAL), 20)
    until(served_by(mesh, *LOCAL), 20)


def usable(mesh: Spread) -> set[str]:
    """The local instances that web may dial now: passing, and ejected for no failure of before."""
    rows = mesh.upstream("db")["targets"][0]["endpoints"]
    serving = [row for row in rows if row["status"] == "passing" and row["ejected_until"] is None]
    return {row["instance"].split()[0].removesuffix("-sidecar-proxy") for row in serving}


def test_same_service_in_two_datacenters_and_one_query_behind_three_ports(mesh: Spread) -> None:
    assert ask(mesh.ports["db2"]) == "db-far hello"
    for name in ("db", "db1", "query1", "query2", "query3"):
        until(lambda port=mesh.ports[name]: ask(port) in {"db-1 hello", "db-2 hello"}, 5)  # type: ignore[misc]
    here, far = {"db-1-sidecar-proxy", "db-2-sidecar-proxy"}, {"db-far-sidecar-proxy"}
    expected = {name: far if name == "db2" else here for name in UPSTREAMS}
    until(lambda: {name: _shown(mesh, name) for name in UPSTREAMS} == expected, 40)  # a query is polled


def _shown(mesh: Spread, upstream: str) -> set[str]:
    """The instances of the upstream's first target, in /status."""
    (first, *_) = mesh.upstream(upstream)["targets"]
    return {endpoint["instance"].split()[0] for endpoint in first["endpoints"]}


def test_load_is_shared_by_the_instances(mesh: Spread) -> None:
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        until(lambda: traffic.answers.total() > 100, 20)
    assert toll == Toll()
    assert min(traffic.answers["db-1 hello"], traffic.answers["db-2 hello"]) > 20


def test_one_instance_is_killed(mesh: Spread) -> None:
    victim, traffic = mesh.instances["db-1"].sidecar, Traffic(mesh.ports["db"])
    until(lambda: usable(mesh) == set(LOCAL), 20)
    with tolled(mesh, traffic) as toll:
        until(lambda: traffic.answers.total() > 20, 20)
        victim.process.kill()
        before = traffic.answers.total()
        until(lambda: traffic.answers.total() > before + 100, 20)
    assert not toll.unserved
    assert toll.cut <= 1
    assert traffic.answers["db-far hello"] == 0
    victim.process.restart()
    come_back(mesh)


def test_all_local_instances_are_killed(mesh: Spread) -> None:
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        until(lambda: traffic.answers.total() > 20, 20)
        moves = Moves(mesh, "db")
        for name in LOCAL:
            mesh.instances[name].sidecar.process.kill()
        moved = moves.away("db@dc2", "all killed")
        until(lambda: traffic.answers["db-far hello"] > 0, LOADED)
        for name in LOCAL:
            mesh.instances[name].sidecar.process.restart()
        returned = moves.to("db", 30)
        until(served_by(mesh, *LOCAL), 20)
    assert not toll.unserved
    assert toll.cut <= len(LOCAL)
    assert returned - moved >= HELD
    come_back(mesh)


def test_checks_turn_critical(mesh: Spread) -> None:
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        until(lambda: traffic.answers.total() > 20, 20)
        moves = Moves(mesh, "db")
        for name in LOCAL:
            mesh.instances[name].check("fail")
        moved = moves.away("db@dc2", "all critical")
        until(lambda: traffic.answers["db-far hello"] > 0, LOADED)
        for name in LOCAL:
            mesh.instances[name].check("pass")
        returned = moves.to("db", 20)
    assert toll == Toll()
    assert returned - moved >= HELD
    come_back(mesh)


def test_checks_turn_critical_behind_a_query(mesh: Spread) -> None:
    """The datacenter's own failover; the query is asked again when a check flips, not half a minute later."""
    port = mesh.ports["query2"]
    until(lambda: ask(port) in {"db-1 hello", "db-2 hello"}, 40)
    traffic = Traffic(port)
    with tolled(mesh, traffic) as toll:
        for name in LOCAL:
            mesh.instances[name].check("fail")
        moved = until(lambda: traffic.answers["db-far hello"] > 0, LOADED)
        for name in LOCAL:
            mesh.instances[name].check("pass")
        returned = until(lambda: ask(port) in {"db-1 hello", "db-2 hello"}, 2 * LOADED)
    assert toll == Toll()
    figures.info("critical behind a query: moved after %.2f s, back after %.2f s", moved, returned)
    come_back(mesh)


def test_a_warning_is_served_when_there_is_nothing_better(mesh: Spread) -> None:
    traffic = Traffic(mesh.ports["db1"])
    with tolled(mesh, traffic) as toll:
        mesh.instances["db-1"].check("warn")
        until(lambda: _status(mesh, "db1", "db-1-sidecar-proxy") == "warning", 5)
        seen = traffic.answers["db-1 hello"]
        before = traffic.answers.total()
        until(lambda: traffic.answers.total() > before + 50, 20)
        assert traffic.answers["db-1 hello"] <= seen + 1
        mesh.instances["db-2"].check("fail")
        until(lambda: ask(mesh.ports["db1"]) == "db-1 hello", LOADED)
    assert toll == Toll()
    come_back(mesh)


def _status(mesh: Spread, upstream: str, instance: str) -> str:
    (target, *_) = mesh.upstream(upstream)["targets"]
    statuses = {row["instance"].split()[0]: row["status"] for row in target["endpoints"]}
    return str(statuses.get(instance))


def test_a_query_that_is_polled_slowly_recovers_soon_from_a_total_failure(mesh: Spread) -> None:
    """Asked every thirty seconds at rest, and at once when all it knows has failed."""
    port = mesh.ports["query1"]
    until(lambda: ask(port) in {"db-1 hello", "db-2 hello"}, 40)
    for name in LOCAL:
        mesh.instances[name].check("fail")
        mesh.instances[name].sidecar.process.kill()
    traffic = Traffic(port)
    with tolled(mesh, traffic) as toll:
        recovered = until(lambda: traffic.answers["db-far hello"] > 0, LOADED)
    assert toll == Toll()
    figures.info("total failure of a query's answer: recovered after %.2f s", recovered)
    for name in LOCAL:
        mesh.instances[name].sidecar.process.restart()
    come_back(mesh)


@pytest.mark.last_act
def test_the_control_planes_are_killed(mesh: Spread) -> None:
    first, second = mesh.federation.processes
    near, far = Traffic(mesh.ports["db"]), Traffic(mesh.ports["db2"])
    with tolled(mesh, near, far) as toll, Conversation(mesh.ports["db2"]) as kept:
        for control_plane in (second, first):
            control_plane.kill()
            before = near.answers.total(), far.answers.total()
            until(lambda: near.answers.total() > before[0] + 50 and far.answers.total() > before[1] + 50, 20)  # noqa: B023
        assert kept.ask("still") == "db-far still"
        moves = Moves(mesh, "db")
        mesh.instances["db-1"].sidecar.process.kill()
        mesh.instances["db-2"].sidecar.process.kill()
        moves.away("db@dc2", "all killed, without control planes")
        until(lambda: near.answers["db-far hello"] > 0, LOADED)
        # While traffic runs: after a hold without any, the preferred target counts as untried again.
        until(lambda: bool(mesh.upstream("db")["targets"][0]["failing"]), 20)
    assert not toll.unserved
    assert toll.cut <= len(LOCAL)
    assert far.answers[""] == 0
