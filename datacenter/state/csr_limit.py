"""How many certificates an authority signs in a second.

See docs/consul-api.md#errors and #leaf.

A signature is the dearest thing a server does. After a rotation every sidecar wants one; beyond the limit a
first leaf is refused with 429, and one that is only to be replaced stays a little longer.
"""

from __future__ import annotations

import trio

from datacenter.state.errors import ApiError

PATIENCE = 0.5  # seconds a caller is kept waiting before it is refused


class CsrLimit:
    """A token bucket by trio's clock, as deep as a second is wide. A rate of 0 is no limit."""

    __slots__ = ("_at", "_level")

    def __init__(self) -> None:
        self._level: float | None = None
        self._at = 0.0

    def take(self, per_second: float) -> bool:
        """Whether one more may be signed now."""
        if per_second <= 0:
            return True
        self._fill(per_second)
        assert self._level is not None  # just filled
        if self._level < 1:
            return False
        self._level -= 1
        return True

    async def wait(self, per_second: float) -> None:
        """Until one more may be signed. Raises ApiError 429 when that is not soon."""
        deadline = trio.current_time() + PATIENCE
        while not self.take(per_second):
            assert self._level is not None  # asked for one just now
            ready = trio.current_time() + (1 - self._level) / per_second
            if ready > deadline:
                raise ApiError(429, "Rate limit reached, try again later")
            await trio.sleep_until(ready)

    def _fill(self, per_second: float) -> None:
        now, depth = trio.current_time(), max(1.0, per_second)
        grown = depth if self._level is None else self._level + (now - self._at) * per_second
        self._level, self._at = min(depth, grown), now
