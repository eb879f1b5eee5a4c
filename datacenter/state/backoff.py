"""How long to wait before asking a datacenter again that did not answer, or not as it should."""

from __future__ import annotations

import random

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0  # Consul goes up to 256 s; a healed WAN shall be noticed sooner than that

_SPREAD = 0.25


class Backoff:
    """Doubles with every failure, spread by a quarter, from one second to thirty."""

    __slots__ = ("_failures", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0

    def reset(self) -> None:
        """It has answered."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        pause = min(FIRST_SECONDS * 2.0 ** min(self._failures, 10), LONGEST_SECONDS)
        self._failures += 1
        return pause * (1 - _SPREAD + 2 * _SPREAD * self._rng.random())
