"""Envoy as the peer, both ways, with leaves of both datacenters and with its session resumption on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.interop import envoy
from tests.interop.mesh import Mesh, Sidecar, Upstream
from tests.interop.origin import GOODBYE, ask

pytestmark = [pytest.mark.envoy, pytest.mark.usefixtures("envoy_binary")]

CALLS = 5
AT_ONCE = 16
VERSIONS = ["1.2", "1.3"]
PEERS = {
    "dc1": Upstream(destination="envoy-dc1", datacenter="dc1"),
    "dc2": Upstream(destination="envoy-dc2", datacenter="dc2"),
}


@pytest.fixture(scope="module", params=["dc1", "dc2"])
def sidecar(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[tuple[str, Sidecar]]:
    """Our sidecar in either datacenter: a leaf signed by the root, and one by an intermediate."""
    with mesh.sidecar(f"ours-{request.param}", request.param, list(PEERS.values())) as running:
        yield request.param, running


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("caller", ["dc1", "dc2"])
def test_envoy_originates_and_we_terminate(
    mesh: Mesh, sidecar: tuple[str, Sidecar], caller: str, version: str
) -> None:
    datacenter, ours = sidecar
    expects = mesh.holder(f"ours-{datacenter}", datacenter).uri
    who = mesh.holder("envoy-caller", caller)
    with envoy.originating(mesh.place("envoy"), who, ours.port, expects, version) as peer:
        # One after the other: from the second on Envoy offers the session of the one before.
        assert [ask(peer.port, b"bye") for _ in range(CALLS)] == [b"BYE" + GOODBYE] * CALLS
        seen = peer.counters("cluster.to.ssl")
    assert seen["handshake"] == CALLS
    assert seen["session_reused"] == seen["connection_error"] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("callee", ["dc1", "dc2"])
def test_we_originate_and_envoy_terminates(
    mesh: Mesh, sidecar: tuple[str, Sidecar], callee: str, version: str
) -> None:
    upstream = PEERS[callee]
    who = mesh.holder(upstream.destination, callee)
    with envoy.terminating(mesh.place("envoy"), who, mesh.origin.port, version) as peer:
        mesh.register_peer(upstream.destination, callee, peer.port, sidecar[1])
        assert [ask(upstream.port, b"bye") for _ in range(CALLS)] == [b"BYE" + GOODBYE] * CALLS
        seen = peer.counters("listener")
    assert seen["handshake"] == CALLS
    assert seen["session_reused"] == seen["connection_error"] == seen["fail_verify_error"] == 0


def test_many_connections_at_once_through_envoy_and_us(mesh: Mesh, sidecar: tuple[str, Sidecar]) -> None:
    datacenter, ours = sidecar
    expects = mesh.holder(f"ours-{datacenter}", datacenter).uri
    who = mesh.holder("envoy-caller", "dc2")
    data = bytes(range(97, 123)) * 10_000
    with (
        envoy.originating(mesh.place("envoy"), who, ours.port, expects) as peer,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        answers = list(threads.map(lambda _: ask(peer.port, data), range(3 * AT_ONCE)))
    assert all(answer == data.upper() for answer in answers)


def test_envoy_with_the_leaf_of_another_service_gets_no_byte(
    mesh: Mesh, sidecar: tuple[str, Sidecar]
) -> None:
    upstream = PEERS["dc2"]
    impostor = mesh.holder("somebody-else", "dc2")
    received = mesh.origin.received
    with envoy.terminating(mesh.place("envoy"), impostor, mesh.origin.port) as peer:
        mesh.register_peer(upstream.destination, "dc2", peer.port, sidecar[1])
        with pytest.raises(ConnectionError):
            ask(upstream.port, b"secret")
    assert mesh.origin.received == received
    assert sidecar[1].status()["counters"]["attempts_failed"]["wrong_identity"] > 0


def test_envoy_that_expects_another_identity_refuses_us(mesh: Mesh, sidecar: tuple[str, Sidecar]) -> None:
    ours = sidecar[1]
    who = mesh.holder("envoy-caller", "dc2")
    other = mesh.holder("somebody-else", "dc2").uri
    accepted = mesh.origin.accepted
    with envoy.originating(mesh.place("envoy"), who, ours.port, other) as peer:
        with suppress(ConnectionError):  # an end or a reset: Envoy's choice
            assert ask(peer.port, b"secret") == b""
        assert peer.counters("cluster.to.ssl")["fail_verify_san"] > 0
    assert mesh.origin.accepted == accepted
