"""Notices a leaf that is issued again and again: each issue costs the authority a signature and us contexts.

A leaf is replaced at some 60-90 % of its life, and once after each rotation of the root. More than a handful
within a small part of its life is somebody's mistake: two agents that fight over one cache entry, an
authority whose signing key flaps, a lifetime that is shorter than anybody meant (docs/consul-api.md#leaf:
below ten minutes Consul renews on every question).
"""

from __future__ import annotations

from collections import deque

MOST_LEAVES = 6  # within the window
LONGEST_WINDOW = 600.0  # seconds


class Churn:
    """Counts new leaves; `alarm` is the sentence about too many of them, empty while all is well.

    Moments are seconds of a clock that never goes back.
    """

    def __init__(self) -> None:
        self._taken: deque[float] = deque(maxlen=MOST_LEAVES)
        self._window = LONGEST_WINDOW
        self._sounding = False

    def taken(self, at: float, life: float) -> bool:
        """A new leaf was taken that lives so many seconds; True when the alarm begins with it."""
        before = self._sounding  # as of the leaf before, not of now: slow churn must not be told at each leaf
        self._window = min(LONGEST_WINDOW, life)
        self._taken.append(at)
        self._sounding = bool(self.alarm(at))
        return self._sounding and not before

    def alarm(self, at: float) -> str:
        """What is wrong at this moment."""
        if len(self._taken) < MOST_LEAVES or at - self._taken[0] > self._window:
            return ""
        seconds = self._taken[-1] - self._taken[0]
        return f"{MOST_LEAVES} leaves within {seconds:.0f} s"
