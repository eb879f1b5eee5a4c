"""The pause before a call to another datacenter is repeated."""

from __future__ import annotations

import random

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0  # Consul goes up to 256 s; a healed WAN is noticed sooner here

_SPREAD = 0.25


class Backoff:
    """A pause that doubles with every failure, from 1 s to 30 s, with a jitter of a quarter."""

    __slots__ = ("_failures", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0

    def reset(self) -> None:
        """Note an answer."""
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        pause = min(FIRST_SECONDS * 2.0 ** min(self._failures, 10), LONGEST_SECONDS)
        self._failures += 1
        return pause * (1 - _SPREAD + 2 * _SPREAD * self._rng.random())
