"""What goes wrong between datacenters: traffic comes home within two seconds, and leaves after the hold.

web wants db of dc2 and has dc1's for a stand-in. New connections one after the other all the while; only who
was being served by dc2's db when it was cut off is lost. `--log-cli-level=INFO` shows the figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.contract.apps import Traffic, ask
from tests.scenarios.moves import Moves, tolled, until
from tests.scenarios.spread import Instance, Spread, spread
from tests.scenarios.wan_link import Link

HOLD = 2.0
HELD = timedelta(seconds=HOLD)
CONNECT_TIMEOUT = timedelta(seconds=1)
FAULTS = "/v1/internal/faults"
UPSTREAMS: dict[str, dict[str, Any]] = {
    "db": {
        "DestinationName": "db",
        "Datacenter": "dc2",
        "Config": {
            "connect_timeout_ms": CONNECT_TIMEOUT / timedelta(milliseconds=1),
            "failover": [{"datacenter": "dc1"}],
            "failover_hold": f"{HOLD:g}s",
            "passive_health_check": {"interval": "10s", "max_failures": 1, "base_ejection_time": "1s"},
        },
    }
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """One instance in each datacenter, the far one behind a link; dc2's leaves live for ten seconds."""
    options = {"dc1": ["-enable-faults"], "dc2": ["-enable-faults", "-leaf-ttl", "10s"]}
    instances = {"near": "dc1", "far": "dc2"}
    directory = tmp_path_factory.mktemp("wan")
    with spread(directory, instances, UPSTREAMS, linked=True, options=options) as started:
        until(lambda: ask(started.ports["db"]) == "far hello", 20)
        yield started


@pytest.fixture
def link(mesh: Spread) -> Link:
    """The way to dc2's instance."""
    found = mesh.instances["far"].link
    assert found is not None
    return found


def cut(mesh: Spread, link: Link, *, silently: bool) -> None:
    """Between the control planes as well as between the services."""
    assert mesh.federation.dc2.put(FAULTS, {"WanCut": True}).status == 200
    link.cut(silently=silently)


def heal(mesh: Spread, link: Link) -> None:
    link.heal()
    assert mesh.federation.dc2.put(FAULTS, {}).status == 200


def lookup_fails(mesh: Spread) -> bool:
    """Whether the far datacenter cannot be asked where its instances are."""
    return bool(mesh.upstream("db")["targets"][0]["failing"])


def test_the_wan_is_cut(mesh: Spread, link: Link) -> None:
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        serves(traffic, "far")
        moves = Moves(mesh, "db")
        cut(mesh, link, silently=False)
        moved = moves.away("db@dc1", "WAN cut, dials refused")
        returned = recovered(mesh, link, moves, traffic)
    assert not toll.unserved
    assert toll.cut <= 1
    assert returned - moved >= HELD


def test_the_wan_is_cut_and_no_dial_is_answered(mesh: Spread, link: Link) -> None:
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        serves(traffic, "far")
        with traffic.paused():
            moves = Moves(mesh, "db")
            cut(mesh, link, silently=True)
        moved = moves.away("db@dc1", "WAN cut, dials not answered")
        returned = recovered(mesh, link, moves, traffic)
    assert not toll.unserved
    assert toll.cut == 0
    assert moved - moves.fault >= CONNECT_TIMEOUT
    assert returned - moved >= HELD


def recovered(mesh: Spread, link: Link, moves: Moves, traffic: Traffic) -> datetime:
    """Served near by while the WAN is cut, and far away after; since when."""
    until(lambda: lookup_fails(mesh), 20)
    serves(traffic, "near")
    heal(mesh, link)
    until(lambda: not lookup_fails(mesh), 60)
    returned = moves.to("db@dc2", 60)
    serves(traffic, "far")
    return returned


def serves(traffic: Traffic, name: str) -> None:
    """Wait for twenty answers of that instance."""
    before = traffic.answers[f"{name} hello"]
    until(lambda: traffic.answers[f"{name} hello"] > before + 20, 20)


def expires(instance: Instance) -> datetime:
    """When the leaf that it presents ends."""
    return instance.sidecar.leaf().not_valid_after_utc


def test_the_remote_leaf_expires(mesh: Spread) -> None:
    """Whatever its datacenter answers, it is no leaf to use: the old one ends, and with it the instance."""
    far, dc2 = mesh.instances["far"], mesh.federation.dc2
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        serves(traffic, "far")
        assert dc2.put(FAULTS, {"Corrupt": "expired"}).status == 200
        until(lambda: refuses_leaves(far), 30)
        moves = Moves(mesh, "db")
        moves.fault = expires(far)
        moves.to("db@dc1", 30)
        moved = moves.away("db@dc1", "remote leaf expired")
        assert moved >= moves.fault
        serves(traffic, "near")
        assert dc2.put(FAULTS, {}).status == 200
        returned = moves.to("db@dc2", 60)
        serves(traffic, "far")
    assert not toll.unserved
    assert toll.cut <= 1  # a connection does not outlive its peer's certificate
    assert returned - moved >= HELD


def refuses_leaves(instance: Instance) -> bool:
    """Whether its sidecar has rejected what it was answered."""
    counters = json.loads(instance.sidecar.ask("/status")[1])["counters"]
    return bool(counters["credentials_rejected"])
