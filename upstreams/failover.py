"""Which of an upstream's targets is the active one: the first that lives, and back only after a hold time.

A target lives while its lookup has answered with an endpoint that is not ejected. One whose first answer
has not come yet is unknown: it is no reason to leave it. A dead active target is left at once; a better one
is returned to when it has lived for the hold time without a break, so that one which comes and goes does not
take the traffic with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum


class TargetHealth(StrEnum):
    """What is known of a target."""

    UNKNOWN = "unknown"
    LIVE = "live"
    DEAD = "dead"


class Failover:
    """The active one of `targets`, in order of preference; `hold` in seconds.

    `clock` gives seconds and never goes back; `since` is of that clock.
    """

    __slots__ = ("_clock", "_hold", "_live_since", "active", "since")

    def __init__(self, targets: int, hold: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hold = hold
        self._live_since: list[float | None] = [None] * targets
        self.active = 0
        self.since = clock()

    def judge(self, lives: Sequence[TargetHealth]) -> bool:
        """Take note of how the targets are now; whether another one is active from now on."""
        now = self._clock()
        for number, life in enumerate(lives):
            if life is not TargetHealth.LIVE:
                self._live_since[number] = None
            elif self._live_since[number] is None:
                self._live_since[number] = now
        chosen = self._chosen(lives, now)
        if chosen == self.active:
            return False
        self.active, self.since = chosen, now
        return True

    def order(self) -> tuple[int, ...]:
        """The targets in the order to try them for one connection."""
        return (self.active, *(number for number in range(len(self._live_since)) if number != self.active))

    def _chosen(self, lives: Sequence[TargetHealth], now: float) -> int:
        if lives[self.active] is TargetHealth.DEAD:
            return next((n for n, life in enumerate(lives) if life is TargetHealth.LIVE), self.active)
        for number in range(self.active):
            since = self._live_since[number]
            if since is not None and now - since >= self._hold:
                return number
        return self.active
