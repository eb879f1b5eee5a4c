"""For all tests: the assertions at the seam between trio's tasks and the relay."""

from __future__ import annotations

import pytest

from tests.seam import Seam, install

SEAM = pytest.StashKey[Seam]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is collected."""
    config.stash[SEAM] = install()


@pytest.fixture(scope="session")
def seam(pytestconfig: pytest.Config) -> Seam:
    """What the relays of this process hold."""
    return pytestconfig.stash[SEAM]
