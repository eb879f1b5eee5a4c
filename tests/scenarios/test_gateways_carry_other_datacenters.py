"""Through mesh gateways: dialled in place of the instance, told the name, trusted with nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.contract.apps import Conversation, ask
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.mesh import put
from tests.contract.services import ttl
from tests.scenarios.spread import NOBODY, Spread, spread

TABLES = {mode: f'spec = "db@dc2:{{port}}"\nmesh_gateway = "{mode}"' for mode in ("local", "remote", "none")}


class Gateway:
    """Passes bytes on to one place, unread; keeps the first of each connection to look at."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.first_bytes: list[bytes] = []
        self.target = target
        self._server = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._server.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        with suppress(OSError), caller, socket.create_connection(self.target) as instance:
            self.first_bytes.append(caller.recv(65536))
            instance.sendall(self.first_bytes[-1])
            back = threading.Thread(target=_copy, args=(instance, caller), daemon=True)
            back.start()
            _copy(caller, instance)
            back.join()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def gateway(api: Api, host: str, target: tuple[str, int], *, wan: bool) -> Iterator[Gateway]:
    """A registered gateway of that datacenter; with `wan` its LAN address is nobody's."""
    carrier = Gateway(host, target)
    lan, port = (NOBODY if wan else host), carrier.address[1]
    service: dict[str, Any] = {"Kind": "mesh-gateway", "Name": "mesh-gateway", "Address": lan, "Port": port}
    if wan:
        service["TaggedAddresses"] = {"wan": {"Address": host, "Port": port}}
    put(api, service | {"Check": ttl(f"gateway-{api.name}")})
    api.until("/v1/health/service/mesh-gateway?passing", len)
    try:
        yield carrier
    finally:
        carrier.close()


@pytest.fixture(scope="module", params=KINDS)
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    """db in dc2 alone, sought in three ways."""
    directory = tmp_path_factory.mktemp("gateways")
    with spread(directory, {"db-far": "dc2"}, {}, request.param, tables=TABLES) as started:
        yield started


@pytest.fixture(scope="module")
def gateways(mesh: Spread) -> Iterator[dict[str, Gateway]]:
    """One in each datacenter, both leading to db's sidecar."""
    dc1, dc2 = mesh.federation
    target = mesh.instances["db-far"].sidecar.public
    with (
        gateway(dc1, "127.0.0.33", target, wan=False) as local,
        gateway(dc2, "127.0.0.43", target, wan=True) as remote,
    ):
        yield {"local": local, "remote": remote}


@pytest.mark.parametrize("mode", ["local", "remote"])
def test_the_gateway_is_dialled_and_told_the_name(
    mesh: Spread, gateways: dict[str, Gateway], mode: str
) -> None:
    with Conversation(mesh.ports[mode]) as conversation:
        assert conversation.ask("hello") == "db-far hello"
        (live,) = json.loads(mesh.web.ask("/status")[1])["connections"]
    host, port = gateways[mode].address
    assert live["address"] == f"{host}:{port}"
    assert live["why"].endswith("mesh gateway")
    assert live["peer"].endswith("/ns/default/dc/dc2/svc/db")
    assert b"db.default.dc2.internal." in gateways[mode].first_bytes[-1]


def test_without_a_mode_nobody_is_in_between(mesh: Spread, gateways: dict[str, Gateway]) -> None:
    before = {mode: len(carrier.first_bytes) for mode, carrier in gateways.items()}
    assert ask(mesh.ports["none"]) == "db-far hello"
    assert {mode: len(carrier.first_bytes) for mode, carrier in gateways.items()} == before


def test_a_gateway_that_leads_astray_is_found_out(mesh: Spread, gateways: dict[str, Gateway]) -> None:
    carrier = gateways["remote"]
    carrier.target = mesh.web.public
    assert ask(mesh.ports["remote"]) == ""
    recent = reversed(json.loads(mesh.web.ask("/status")[1])["recent"])
    failed = next(row for row in recent if row["direction"] == "outbound" and row["detail"])
    assert "wrong_identity" in failed["detail"]  # the one before may have ended later
    carrier.target = mesh.instances["db-far"].sidecar.public
    assert ask(mesh.ports["remote"]) == "db-far hello"  # ejected, and yet the only way
