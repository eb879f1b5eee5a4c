"""What Consul answers of another datacenter cannot be dialled; what the sidecar makes of it can.

db of dc2 is registered under a LAN address and port where nobody listens here, and a WAN address and port. An
agent that translates answers with one of either (docs/consul-api.md#wan-addresses), one that does not with
the LAN pair.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.apps import Conversation, ask
from tests.contract.conftest import KINDS
from tests.scenarios.moves import until
from tests.scenarios.spread import NOBODY, Spread, spread

TABLES = {
    "service": 'spec = "db@dc2:{port}"',
    "query": 'spec = "prepared_query:anywhere:{port}"',
    "as on one flat network": 'spec = "db@dc2:{port}"\nwan = "never"',
}


@dataclass(frozen=True, slots=True)
class Translated:
    """The mesh, and whether its agents translate."""

    mesh: Spread
    translate: bool


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["translated", "untranslated"])
def there(
    kind: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Translated]:
    """db in dc2 alone."""
    directory = tmp_path_factory.mktemp("pairs")
    with spread(directory, {"db-far": "dc2"}, {}, kind, translate=request.param, tables=TABLES) as mesh:
        service = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "Connect": True}
        answer = mesh.federation.dc1.post("/v1/query", {"Name": "anywhere", "Service": service})
        assert answer.status == 200
        yield Translated(mesh, request.param)


def test_what_is_answered_cannot_be_dialled(there: Translated) -> None:
    far = there.mesh.instances["db-far"]
    (entry,) = there.mesh.federation.dc1.get("/v1/health/connect/db?dc=dc2").json
    answered = entry["Service"]["Address"], entry["Service"]["Port"]
    port = far.sidecar.public[1] if there.translate else far.registered[1]
    assert answered == (NOBODY, port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(answered, timeout=5)


@pytest.mark.parametrize("name", ["service", "query"])
def test_the_wan_pair_is_dialled(there: Translated, name: str) -> None:
    mesh = there.mesh
    until(lambda: ask(mesh.ports[name]) == "db-far hello", 40)
    with Conversation(mesh.ports[name]) as conversation:
        assert conversation.ask("hello") == "db-far hello"
        (live,) = json.loads(mesh.web.ask("/status")[1])["connections"]
    host, port = mesh.instances["db-far"].sidecar.public
    assert (live["address"], live["why"]) == (f"{host}:{port}", "wan_tag")
    log = mesh.web.process.log.read_text()
    assert ("doubt=mixed_pair" in log) == there.translate


def test_who_wants_no_wan_address_gets_the_lan_pair_whole(there: Translated) -> None:
    """Nobody is there: it is the far network's own address."""
    mesh = there.mesh
    assert ask(mesh.ports["as on one flat network"]) == ""
    host, port = mesh.instances["db-far"].registered
    failures = [row["detail"] for row in json.loads(mesh.web.ask("/status")[1])["recent"] if row["detail"]]
    assert f"{host}:{port} (lan_tag): connect_refused" in failures[-1]
