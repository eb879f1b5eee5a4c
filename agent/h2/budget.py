"""Bounds how often a peer may do what costs us more than it costs the peer."""

from __future__ import annotations

from collections.abc import Callable


class Budget:
    """`burst` tokens, refilled by `rate` a second. The clock returns seconds and never goes back."""

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate")

    def __init__(self, burst: float, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._left = burst
        self._at = clock()

    def spend(self) -> bool:
        """Take one token; return False if there is none."""
        if self._left < 1:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
        self._left -= 1
        return True
