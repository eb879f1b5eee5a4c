"""Whether Consul has confirmed a value lately enough: decided at each evaluation, never published.

A confirmation changes one small cell and nothing of what it confirms. Each process that judges callers judges
the age too, so that a worker whose control process hangs does not go on for ever by the last values it
received. The time is up when either clock says so: the wall clock, which goes on while the machine sleeps, or
trio's, which is never set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import trio

from agent.base.clock import Clock
from agent.base.latest import Latest

LOOK_SECONDS = 1.0  # the longest sleep: meanwhile the wall clock may be set, or the machine may sleep


@dataclass(frozen=True, slots=True)
class Confirmation:
    """When Consul last confirmed the value: by the wall clock, and in seconds by trio's."""

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
        """When the value becomes too old without another confirmation; None for never."""
        if self._max_age == math.inf:
            return None
        last = self._confirmed.value
        return self._began if last is None else last.at + timedelta(seconds=self._max_age)

    def too_old_since(self) -> datetime | None:
        """Return since when the value is too old; None while it is not.

        Without a confirmation it is too old.
        """
        return self.good_until if self._rest() < 0 else None

    async def becomes_too_old(self) -> datetime:
        """Wait until the value is too old, and return since when."""
        if self._max_age == math.inf:
            await trio.sleep_forever()
        while True:
            since = self.too_old_since()
            if since is not None:
                return since
            await trio.sleep(min(LOOK_SECONDS, self._rest() + 0.001))

    async def is_good_again(self) -> None:
        """Wait for a confirmation that makes the value good again."""
        version = 0
        while self.too_old_since() is not None:
            _, version = await self._confirmed.newer(version)

    def _rest(self) -> float:
        """Return the seconds until the value is too old, by the clock with less time left; then negative."""
        if self._max_age == math.inf:
            return math.inf
        last = self._confirmed.value
        if last is None:
            return -math.inf
        age = max((self._clock() - last.at).total_seconds(), trio.current_time() - last.moment)
        return self._max_age - age
