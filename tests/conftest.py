"""For all tests: the assertions at the seam between trio's tasks and the relay; no example is timed.

An unforeseen exception is contained in the agent, and fails the test in which it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from agent.base.containment import Where
from agent.log.watch_events import WatchJournal
from tests.seam import Seam, install

SEAM = pytest.StashKey[Seam]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is collected."""
    config.stash[SEAM] = install()
    # Hypothesis times examples, and their making: on a machine that is busy, tests would fail for nothing.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.hookimpl(trylast=True)  # after they have been shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a module's last act, which no test of that module can follow, behind the others of it."""
    places: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.path, []).append(place)
    for theirs in places.values():
        ordered = sorted((items[place] for place in theirs), key=_is_last_act)
        for place, item in zip(theirs, ordered, strict=True):
            items[place] = item


def _is_last_act(item: pytest.Item) -> bool:
    return item.get_closest_marker("last_act") is not None


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
