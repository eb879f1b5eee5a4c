"""Python's own `ssl` as the peer, both ways: another OpenSSL than ours, and no knowledge of SPIFFE."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from tests.interop.mesh import Mesh, Sidecar, Upstream
from tests.interop.origin import ask
from tests.interop.stdlib import call, context, shouting

PEER = Upstream(destination="stdlib-dc2", datacenter="dc2")
VERSIONS = ["1.2", "1.3"]


@pytest.fixture(scope="module")
def ours(mesh: Mesh) -> Iterator[Sidecar]:
    """Our sidecar in dc1, with an upstream that is Python in dc2."""
    with mesh.sidecar("ours-stdlib", "dc1", [PEER]) as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("datacenter", ["dc1", "dc2"])
def test_python_calls_us_and_no_session_is_resumed(
    mesh: Mesh, ours: Sidecar, datacenter: str, version: str
) -> None:
    files = mesh.holder("stdlib-caller", datacenter).files(mesh.place("caller"))
    tls = context(files, server=False, version=version)
    first = call(tls, ours.port, b"hello")
    second = call(tls, ours.port, b"again", first.session)
    assert (first.received, second.received) == (b"HELLO", b"AGAIN")
    assert first.version == f"TLSv{version}"
    assert first.uris == (mesh.holder("ours-stdlib", "dc1").uri,)
    assert not second.session_reused


@pytest.mark.parametrize("version", VERSIONS)
def test_we_call_python(mesh: Mesh, ours: Sidecar, version: str) -> None:
    files = mesh.holder(PEER.destination, PEER.datacenter).files(mesh.place("server"))
    with shouting(context(files, server=True, version=version)) as port:
        mesh.register_peer(PEER.destination, PEER.datacenter, port, ours)
        assert [ask(PEER.port, b"hello") for _ in range(3)] == [b"HELLO"] * 3


def test_python_without_a_certificate_never_reaches_the_app(mesh: Mesh, ours: Sidecar) -> None:
    files = mesh.holder("stdlib-caller", "dc1").files(mesh.place("caller"))
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(files.roots)
    accepted = mesh.origin.accepted
    with pytest.raises((ssl.SSLError, ConnectionError)):
        call(bare, ours.port, b"let me in")
    assert mesh.origin.accepted == accepted
