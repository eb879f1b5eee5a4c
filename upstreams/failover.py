"""Which of an upstream's targets is active: the first live one, with a hold time before a return.

A target is live while its lookup has answered with an endpoint that is not ejected. Before its first answer
it is unknown, which is no reason to leave it. A dead active target is left at once. A better target is
returned to when it has been live for the hold time without a break, so that an unstable one does not draw the
traffic.
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
    """The active one of `targets`, which are in order of preference; `hold` in seconds.

    `clock` returns seconds and never goes back; `since` is by that clock.
    """

    __slots__ = ("_clock", "_hold", "_live_since", "active", "since")

    def __init__(self, targets: int, hold: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hold = hold
        self._live_since: list[float | None] = [None] * targets
        self.active = 0
        self.since = clock()

    def judge(self, health: Sequence[TargetHealth]) -> bool:
        """Take note of the targets' health; return whether another target is active now."""
        now = self._clock()
        for number, state in enumerate(health):
            if state is not TargetHealth.LIVE:
                self._live_since[number] = None
            elif self._live_since[number] is None:
                self._live_since[number] = now
        chosen = self._chosen(health, now)
        if chosen == self.active:
            return False
        self.active, self.since = chosen, now
        return True

    def order(self) -> tuple[int, ...]:
        """Return the targets in the order to try them for one connection."""
        return (self.active, *(number for number in range(len(self._live_since)) if number != self.active))

    def _chosen(self, health: Sequence[TargetHealth], now: float) -> int:
        if health[self.active] is TargetHealth.DEAD:
            return next((n for n, state in enumerate(health) if state is TargetHealth.LIVE), self.active)
        for number in range(self.active):
            since = self._live_since[number]
            if since is not None and now - since >= self._hold:
                return number
        return self.active
