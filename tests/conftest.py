"""For all tests: the assertions at the seam between trio's tasks and the relay; no example is timed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.seam import Seam, install

SEAM = pytest.StashKey[Seam]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is collected."""
    config.stash[SEAM] = install()
    # Hypothesis times examples, and their making: on a machine that is busy, tests would fail for nothing.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.fixture(scope="session")
def seam(pytestconfig: pytest.Config) -> Seam:
    """What the relays of this process hold."""
    return pytestconfig.stash[SEAM]
