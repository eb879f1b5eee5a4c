"""After a new root: peers that have not heard of it yet, and peers that have, in either datacenter.

Our leaf then travels with the cross-signed root (docs/consul-api.md#certificates: leaf, cross-signed root,
intermediate), which is not path order in a secondary; a peer that trusts the old root alone must still come
to the end of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.contract.chains import new_key
from tests.interop import envoy
from tests.interop.holder import Holder
from tests.interop.mesh import Mesh, Sidecar, Upstream
from tests.interop.openssl import s_client
from tests.interop.origin import GOODBYE, ask

ROOTS = "/v1/agent/connect/ca/roots"
CONFIGURATION = "/v1/connect/ca/configuration"
PEER = Upstream(destination="envoy-rotated", datacenter="dc2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """Our sidecar with a leaf under the new root; peers in dc2 from before and from after, by name."""

    datacenter: str
    ours: Sidecar
    uri: str
    peers: dict[str, Holder]


@pytest.fixture(scope="module", params=["dc1", "dc2"])
def rotated(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[Rotated]:
    """Rotate the root, then start our sidecar."""
    before = mesh.holder(PEER.destination, "dc2")
    _rotate(mesh)
    after = mesh.holder(PEER.destination, "dc2")
    assert before.cert_pem != after.cert_pem
    name = f"ours-rotated-{request.param}"
    with mesh.sidecar(name, request.param, [PEER]) as ours:
        yield Rotated(
            datacenter=request.param,
            ours=ours,
            uri=mesh.holder(name, request.param).uri,
            peers={"before": before, "after": after},
        )


def _rotate(mesh: Mesh) -> None:
    known = {api.get(ROOTS).json["ActiveRootID"] for api in mesh.federation}
    configuration = mesh.federation.dc1.get(CONFIGURATION).json
    configuration["Config"] |= {"PrivateKey": new_key(), "RootCert": ""}
    written = mesh.federation.dc1.put(CONFIGURATION, configuration)
    assert written.status == 200, written.text
    for api in mesh.federation:
        api.until(ROOTS, lambda roots: roots["ActiveRootID"] not in known)


@pytest.mark.envoy
@pytest.mark.usefixtures("envoy_binary")
@pytest.mark.parametrize("issued", ["before", "after"])
def test_envoy_originates_and_we_terminate(mesh: Mesh, rotated: Rotated, issued: str) -> None:
    who = rotated.peers[issued]
    with envoy.originating(mesh.place("envoy"), who, rotated.ours.port, rotated.uri) as peer:
        assert ask(peer.port, b"bye") == b"BYE" + GOODBYE


@pytest.mark.envoy
@pytest.mark.usefixtures("envoy_binary")
@pytest.mark.parametrize("issued", ["before", "after"])
def test_we_originate_and_envoy_terminates(mesh: Mesh, rotated: Rotated, issued: str) -> None:
    with envoy.terminating(mesh.place("envoy"), rotated.peers[issued], mesh.origin.port) as peer:
        mesh.register_peer(PEER.destination, "dc2", peer.port, rotated.ours)
        assert ask(PEER.port, b"bye") == b"BYE" + GOODBYE


@pytest.mark.usefixtures("openssl_program")
@pytest.mark.parametrize("issued", ["before", "after"])
def test_openssl_finds_a_way_to_the_root_it_trusts(mesh: Mesh, rotated: Rotated, issued: str) -> None:
    files = rotated.peers[issued].files(mesh.place("caller"))
    printed = s_client(files, rotated.ours.port, "-tls1_3", says="quack", hears="QUACK")
    assert "Verify return code: 0 (ok)" in printed
