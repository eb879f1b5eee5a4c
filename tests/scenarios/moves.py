"""Traffic that moves to another target and back, when it did so, and what it cost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

from tests.contract.apps import Traffic
from tests.scenarios.spread import Spread

_FIGURES = logging.getLogger("scenarios.figures")

SOON = 2.0  # seconds within which traffic has moved, as demanded
LOADED = 2 * SOON  # the same on a machine that has much else to do; the figures are in the log


def until(true: Callable[[], bool], seconds: float) -> float:
    """Poll other processes until it is so; how long it took."""
    began = monotonic()
    while not true():
        assert monotonic() < began + seconds, f"not within {seconds} s"
        sleep(0.01)
    return monotonic() - began


@dataclass(slots=True)
class Toll:
    """What became of the requests of a while, by web's own books.

    `unserved`: connections of web's app that no instance was found for, by reason; these are the errors that
    must not be. `cut`: requests that were under way at an instance when it was gone.
    """

    unserved: Counter[str] = field(default_factory=Counter)
    cut: int = 0


@contextmanager
def tolled(mesh: Spread, *traffic: Traffic) -> Iterator[Toll]:
    """Complete after the block; the traffic runs within it and no longer."""
    toll, before = Toll(), mesh.unserved()
    with ExitStack() as stack:
        for one in traffic:
            stack.enter_context(one)
        yield toll
    toll.unserved = mesh.unserved() - before
    toll.cut = sum(one.answers[""] for one in traffic) - toll.unserved.total()


class Moves:
    """An upstream's changes of target, on the clock of web's sidecar; begins with a fault."""

    def __init__(self, mesh: Spread, upstream: str) -> None:
        self._mesh = mesh
        self._upstream = upstream
        self.fault = datetime.now(UTC)

    def to(self, target: str, seconds: float = LOADED) -> datetime:
        """Wait until that target is active; since when it is."""
        until(lambda: bool(self._row()["active"] == target), seconds)
        return datetime.fromisoformat(self._row()["active_since"])

    def away(self, target: str, what: str) -> datetime:
        """The same, soon after the fault: `what` names it among the figures."""
        at = self.to(target)
        took = (at - self.fault).total_seconds()
        _FIGURES.info("%s: moved after %.2f s", what, took)
        assert took < LOADED
        return at

    def _row(self) -> dict[str, Any]:
        return self._mesh.upstream(self._upstream)
