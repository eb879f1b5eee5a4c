"""Envoy as the peer of a tunnel, both ways: HTTP/2 CONNECT as somebody else has written it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop import envoy
from tests.interop.mesh import Mesh, Sidecar, Upstream
from tests.interop.origin import GOODBYE, ask

pytestmark = [pytest.mark.envoy, pytest.mark.usefixtures("envoy_binary")]

CALLS, AT_ONCE = 40, 8
PEER = Upstream(destination="envoy-tunnels", datacenter="dc2")
BIG = bytes(range(97, 123)) * 100_000  # a to z


@pytest.fixture(scope="module")
def ours(mesh: Mesh) -> Iterator[Sidecar]:
    with mesh.sidecar("ours-tunnels", "dc1", [PEER], "-tunnel", "auto") as running:
        yield running


def calls(port: int) -> None:
    """Many at once, each with an end of its own in both directions, and one that is bulk."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: ask(port, b"bye"), range(CALLS)))
    assert answers == [b"BYE" + GOODBYE] * CALLS
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sock.sendall, BIG)
        got = bytearray()
        while len(got) < len(BIG):
            got += sock.recv(1 << 20)
        sent.result(20)
    assert bytes(got) == BIG.upper()


def test_envoy_opens_a_tunnel_to_us(mesh: Mesh, ours: Sidecar) -> None:
    expects = mesh.holder("ours-tunnels", "dc1").uri
    who = mesh.holder("envoy-caller", "dc2")
    before = ours.endings("inbound").get("clean", 0)
    sni = "tunnel-v1.ours-tunnels.default.dc1.internal.11111111.consul"
    with envoy.tunnelling(mesh.place("envoy"), who, ours.port, expects, sni) as peer:
        calls(peer.port)
        seen = peer.counters("cluster.to")
        assert seen["upstream_cx_total"] <= 2  # one, and one more if it was slow to greet
        (row,) = [row for row in ours.status()["tunnels"] if row["direction"] == "inbound"][:1]
        assert row["peer"] == who.uri
    assert ours.endings("inbound")["clean"] >= before + CALLS


def test_without_the_sign_its_frames_are_bytes_for_the_app(mesh: Mesh, ours: Sidecar) -> None:
    """Nothing is guessed: what is not marked as a tunnel is relayed, whatever it looks like."""
    expects = mesh.holder("ours-tunnels", "dc1").uri
    who = mesh.holder("envoy-caller", "dc2")
    place, sni = mesh.place("envoy"), "ours.internal"
    with (
        envoy.tunnelling(place, who, ours.port, expects, sni) as peer,
        pytest.raises(ConnectionResetError),
    ):
        ask(peer.port, b"bye")


def test_we_open_a_tunnel_to_envoy(mesh: Mesh, ours: Sidecar) -> None:
    who = mesh.holder(PEER.destination, "dc2")
    with envoy.ending_tunnels(mesh.place("envoy"), who, mesh.origin.port) as peer:
        mesh.register_peer(PEER.destination, "dc2", peer.port, ours, tunnel=True)
        calls(PEER.port)
        (row,) = [row for row in ours.status()["tunnels"] if row["direction"] == "outbound"]
        assert row["peer"] == who.uri
        assert peer.counters("listener")["handshake"] == 1
