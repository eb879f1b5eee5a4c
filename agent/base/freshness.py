"""Whether Consul has confirmed lately enough what is known: judged at each evaluation, never published.

A confirmation moves one small cell and nothing of what it confirms. Each process that judges callers judges
the age too, so a worker whose control process hangs does not go on for ever by what it received last. The
time is up when either clock says so: the wall clock, which goes on while the machine sleeps, or trio's, which
is never set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import trio

from agent.base.clock import Clock
from agent.base.latest import Latest

LOOK_SECONDS = 1.0  # the wall clock may be set, and the machine sleep, while we sleep on trio's


@dataclass(frozen=True, slots=True)
class Confirmation:
    """When Consul last said what is known: by the wall clock, and in seconds by trio's."""

    at: datetime
    moment: float


class Freshness:
    """How long the last confirmation is good. `max_age` in seconds, infinite for ever."""

    def __init__(self, confirmed: Latest[Confirmation], max_age: float, clock: Clock) -> None:
        self._confirmed = confirmed
        self._max_age = max_age
        self._clock = clock
        self._began = clock()

    @property
    def good_until(self) -> datetime | None:
        """When what is known is too old unless it is confirmed once more; None is never."""
        if self._max_age == math.inf:
            return None
        last = self._confirmed.value
        return self._began if last is None else last.at + timedelta(seconds=self._max_age)

    def too_old_since(self) -> datetime | None:
        """Since when what is known is too old; None while it is not. What was never confirmed is too old."""
        return self.good_until if self._rest() < 0 else None

    async def becomes_too_old(self) -> datetime:
        """Wait until what is known is too old, and return since when; for ever if that cannot be."""
        if self._max_age == math.inf:
            await trio.sleep_forever()
        while (since := self.too_old_since()) is None:  # noqa: ASYNC110 - time makes it so
            await trio.sleep(min(LOOK_SECONDS, self._rest() + 0.001))
        return since

    async def is_good_again(self) -> None:
        """Wait for a confirmation by which what is known is not too old."""
        version = 0
        while self.too_old_since() is not None:
            _, version = await self._confirmed.newer(version)

    def _rest(self) -> float:
        """Seconds until what is known is too old, by the clock that says less; negative afterwards."""
        if self._max_age == math.inf:
            return math.inf
        last = self._confirmed.value
        if last is None:
            return -math.inf
        age = max((self._clock() - last.at).total_seconds(), trio.current_time() - last.moment)
        return self._max_age - age
