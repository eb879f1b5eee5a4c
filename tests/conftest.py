"""For all tests: the assertions at the seam between trio's tasks and the relay; no example is timed.

An unforeseen exception is contained in the agent, and fails the test in which it happens.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from agent.base.containment import Where
from agent.observe.watch_events import WatchJournal
from tests.seam import Seam, install

SEAM = pytest.StashKey[Seam]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is collected."""
    config.stash[SEAM] = install()
    # Hypothesis times examples, and their making: on a machine that is busy, tests would fail for nothing.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def no_internal_error(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is contained in an agent is not to be overlooked in its tests: a bug there fails them."""
    told: list[str] = []
    tell = WatchJournal.internal_error

    def remember(self: WatchJournal, where: Where, name: str, error: BaseException, /) -> None:
        told.append(f"{where.value} {name}: {error!r}")
        tell(self, where, name, error)

    monkeypatch.setattr(WatchJournal, "internal_error", remember)
    yield
    assert request.node.get_closest_marker("internal_errors") or not told, told


@pytest.fixture(scope="session")
def seam(pytestconfig: pytest.Config) -> Seam:
    """What the relays of this process hold."""
    return pytestconfig.stash[SEAM]
