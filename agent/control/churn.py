"""Notices a leaf that is issued again and again.

Each issue costs the authority a signature and us TLS contexts.

A leaf is replaced at 60-90 % of its life, and once after each rotation of the root. More than a few within a
small part of its life have a cause that should be mended: two agents that compete for one cache entry, an
authority whose signing key keeps changing, a lifetime that is too short (docs/consul-api.md#leaf: below ten
minutes Consul renews at every question).
"""

from __future__ import annotations

from collections import deque

MOST_LEAVES = 6  # within the window
LONGEST_WINDOW = 600.0  # seconds


class Churn:
    """Counts new leaves; `alarm` returns a sentence if there are too many, empty otherwise.

    Times are seconds of a clock that never goes back.
    """

    def __init__(self) -> None:
        self._taken: deque[float] = deque(maxlen=MOST_LEAVES)
        self._window = LONGEST_WINDOW
        self._sounding = False

    def taken(self, at: float, life: float) -> bool:
        """Note a new leaf that lives `life` seconds; return whether the alarm begins with it."""
        before = self._sounding  # as of the last leaf, so that slow churn is not reported with each leaf
        self._window = min(LONGEST_WINDOW, life)
        self._taken.append(at)
        self._sounding = bool(self.alarm(at))
        return self._sounding and not before

    def alarm(self, at: float) -> str:
        """Return what is wrong at that moment; empty if nothing is."""
        if len(self._taken) < MOST_LEAVES or at - self._taken[0] > self._window:
            return ""
        seconds = self._taken[-1] - self._taken[0]
        return f"{MOST_LEAVES} leaves within {seconds:.0f} s"
