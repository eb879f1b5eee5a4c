"""The openssl command line as the peer, both ways, resumption attempts included."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.mesh import Mesh, Sidecar, Upstream
from tests.interop.openssl import s_client, s_server
from tests.interop.origin import SECONDS

pytestmark = pytest.mark.usefixtures("openssl_program")

PEER = Upstream(destination="openssl-dc2", datacenter="dc2")
VERSIONS = ["-tls1_2", "-tls1_3"]


@pytest.fixture(scope="module")
def ours(mesh: Mesh) -> Iterator[Sidecar]:
    """Our sidecar in dc1, with an upstream that is openssl in dc2."""
    with mesh.sidecar("ours-openssl", "dc1", [PEER]) as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("datacenter", ["dc1", "dc2"])
def test_s_client_calls_us_and_sees_our_identity(
    mesh: Mesh, ours: Sidecar, datacenter: str, version: str
) -> None:
    files = mesh.holder("openssl-caller", datacenter).files(mesh.place("caller"))
    printed = s_client(files, ours.port, version, says="quack", hears="QUACK")
    assert "Verify return code: 0 (ok)" in printed
    assert "Secure Renegotiation IS NOT supported" in printed or version == "-tls1_2"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_is_offered_again_is_a_full_handshake(
    mesh: Mesh, ours: Sidecar, tmp_path: Path, version: str
) -> None:
    files = mesh.holder("openssl-caller", "dc2").files(mesh.place("caller"))
    saved = tmp_path / "session.pem"
    first = s_client(files, ours.port, version, "-sess_out", str(saved), says="one", hears="ONE")
    offered = ["-sess_in", str(saved)] if saved.exists() else []
    second = s_client(files, ours.port, version, *offered, says="two", hears="TWO")
    assert [text.count("Reused, ") for text in (first, second)] == [0, 0]
    assert "New, " in second


def test_reconnecting_five_times_works_each_time(mesh: Mesh, ours: Sidecar) -> None:
    files = mesh.holder("openssl-caller", "dc2").files(mesh.place("caller"))
    printed = s_client(files, ours.port, "-tls1_2", "-reconnect", says="again", hears="AGAIN")
    assert printed.count("New, TLSv1.2") == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_we_call_s_server_again_and_again(mesh: Mesh, ours: Sidecar, tmp_path: Path, version: str) -> None:
    files = mesh.holder(PEER.destination, "dc2").files(mesh.place("server"))
    log = tmp_path / "server.log"
    with s_server(files, log, version) as port:
        mesh.register_peer(PEER.destination, "dc2", port, ours)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", PEER.port), timeout=SECONDS) as app:
                app.sendall(b"stressed\n")
                assert app.recv(64) == b"desserts\n"
    printed = log.read_text()
    assert printed.count("Verification: OK") == 3
    assert "Reused session-id" not in printed
