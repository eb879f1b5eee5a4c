"""A sidecar that ends says so first: no call is lost, and its own app's upstreams stay open meanwhile.

The sidecars are processes beside the embedded datacenter, each of whose proxies the catalog shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.control.self_registration import STOPPING
from tests.contract.apps import Traffic, ask
from tests.scenarios.moves import tolled, until
from tests.scenarios.spread import Spread, spread, wait_until_ready

LEAVE = 2.0  # seconds
CHECKS, SERVICE = "/v1/agent/checks", "/v1/agent/service"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """Web, and two instances of db in its datacenter."""
    directory = tmp_path_factory.mktemp("leaving")
    upstreams = {"db": {"DestinationName": "db"}}
    with spread(directory, {"db-1": "dc1", "db-2": "dc1"}, upstreams, leave=LEAVE) as started:
        yield started


def reason(mesh: Spread, proxy: str) -> str | None:
    """Return the reason of a proxy's maintenance; None without one."""
    checks = mesh.federation.dc1.get(CHECKS).json
    check = checks.get(f"_service_maintenance:{proxy}")
    return None if check is None else str(check["Notes"])


def test_no_call_is_lost_when_one_of_two_ends_and_its_next_start_ends_the_maintenance(mesh: Spread) -> None:
    proxy, sidecar = "db-1-sidecar-proxy", mesh.instances["db-1"].sidecar
    traffic = Traffic(mesh.ports["db"])
    with tolled(mesh, traffic) as toll:
        until(lambda: traffic.answers["db-1 hello"] > 0, 10)
        sidecar.process.end()
        assert reason(mesh, proxy) == STOPPING
    assert (toll.unserved, toll.cut) == ({}, 0)
    sidecar.process.restart()
    wait_until_ready(sidecar)
    until(lambda: reason(mesh, proxy) is None, 10)
    mesh.federation.dc1.until("/v1/health/connect/db?passing", lambda rows: len(rows) == 2)


def test_an_operators_maintenance_outlives_end_and_start(mesh: Spread) -> None:
    proxy, sidecar = "db-1-sidecar-proxy", mesh.instances["db-1"].sidecar
    path = f"{SERVICE}/maintenance/{proxy}?enable=true&reason=works"
    assert mesh.federation.dc1.put(path).status == 200
    sidecar.process.end()
    sidecar.process.restart()
    wait_until_ready(sidecar)
    assert reason(mesh, proxy) == "works"
    assert mesh.federation.dc1.put(f"{SERVICE}/maintenance/{proxy}?enable=false").status == 200


def test_an_idle_sidecar_keeps_serving_its_upstreams_while_it_leaves(mesh: Spread) -> None:
    mesh.web.process.terminate()
    until(lambda: reason(mesh, "web-sidecar-proxy") == STOPPING, 10)
    assert ask(mesh.ports["db"]) in {"db-1 hello", "db-2 hello"}
    mesh.web.process.end()
    mesh.web.process.restart()
    wait_until_ready(mesh.web)
