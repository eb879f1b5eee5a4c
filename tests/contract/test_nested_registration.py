"""`Proxy.Config` nested a thousand deep: a real Consul takes it, and no sidecar may fall by it.

One reads it as an upstream, one stands beside another service of that host, and is started anew meanwhile.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.federation import Federation, free_port, running
from tests.contract.mesh import Sidecar
from tests.contract.processes import process

LEVELS = 1000
SECONDS = 30.0


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "embedded"] or ["none"])
def federation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    """A real Consul: the embedded datacenter refuses what is nested so deep."""
    if request.param == "none":
        pytest.skip("no real Consul: CONSUL_BIN, or `consul` on PATH")
    with running("consul", tmp_path_factory.mktemp("nested")) as started:
        yield started


def nested(name: str, port: int) -> str:
    """A service whose proxy has such a Config, as text: no encoder of ours writes it."""
    deep = '{"a":' * LEVELS + "1" + "}" * LEVELS
    proxy: dict[str, Any] = {"Port": port, "Proxy": {"Config": {"x": "DEEP"}}}
    service = {"Name": name, "Port": 9, "Connect": {"SidecarService": proxy}}
    return json.dumps(service).replace('"DEEP"', deep)


def eventually(true: Callable[[], bool]) -> None:
    deadline = monotonic() + SECONDS
    while not true():
        assert monotonic() < deadline
        sleep(0.1)  # a poll of another process; there is nothing to wait on


def sidecar(api: Api) -> tuple[list[str], tuple[str, int]]:
    admin = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", "web", "-http-addr", api.url]
    return [*command, "-admin-bind", f"{admin[0]}:{admin[1]}", "-leave-seconds", "0"], admin


def ready(one: Sidecar) -> bool:
    one.process.must_live()
    return one.ask("/ready")[0] == 200


def test_no_sidecar_falls_by_what_another_service_registers(federation: Federation, tmp_path: Path) -> None:
    api, upstream = federation.dc1, {"DestinationName": "db", "LocalBindPort": free_port()}
    proxy = {"Address": "127.0.0.1", "Port": free_port(), "Proxy": {"Upstreams": [upstream]}, "Checks": []}
    web = {"Name": "web", "Port": 9, "Connect": {"SidecarService": proxy}}
    assert api.put("/v1/agent/service/register", web).status == 200
    plain = {"Name": "db", "Port": 9, "Connect": {"SidecarService": {"Port": 20000}}}
    assert api.put("/v1/agent/service/register", plain).status == 200
    command, admin = sidecar(api)
    with process(command, tmp_path / "web.log") as running_:
        one = Sidecar(admin=admin, public=("", 0), process=running_)
        eventually(lambda: ready(one))
        assert api.put("/v1/agent/service/register", nested("db", 20000)).status == 200
        eventually(lambda: _failing(one) == "malformed")
        assert ready(one)
        assert _instances(one) == 1, "the last good value"
        running_.kill()
        running_.restart()  # beside a list of services that cannot be read
        eventually(lambda: ready(one))
        assert api.put("/v1/agent/service/register", plain).status == 200
        eventually(lambda: _failing(one) == "")
        assert "internal_error" not in running_.log.read_text()


def _status(one: Sidecar) -> Any:
    return json.loads(one.ask("/status")[1])


def _failing(one: Sidecar) -> str:
    (watch,) = (watch for watch in _status(one)["watches"] if watch["name"] == "endpoints db")
    return "" if watch["failing"] is None else str(watch["failing"]["reason"])


def _instances(one: Sidecar) -> int:
    return sum(len(target["endpoints"]) for row in _status(one)["upstreams"] for target in row["targets"])
