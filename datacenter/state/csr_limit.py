"""Limits how many certificates the authority signs in a second.

See docs/consul-api.md#errors and #leaf.

A signature is a server's most expensive work, and after a rotation every sidecar wants one. Beyond the limit
a first leaf is refused with 429, and a leaf that is to be replaced is kept a little longer.
"""

from __future__ import annotations

import trio

from datacenter.state.errors import ApiError

PATIENCE = 0.5  # seconds a caller waits before it is refused


class CsrLimit:
    """A token bucket by trio's clock that holds one second's worth. A rate of 0 means no limit."""

    __slots__ = ("_at", "_level")

    def __init__(self) -> None:
        self._level: float | None = None
        self._at = 0.0

    def take(self, per_second: float) -> bool:
        """Take one signature; return whether that was possible now."""
        if per_second <= 0:
            return True
        self._fill(per_second)
        assert self._level is not None  # set by `_fill`
        if self._level < 1:
            return False
        self._level -= 1
        return True

    async def wait(self, per_second: float) -> None:
        """Wait for one signature. Raises ApiError 429 if the wait would be over PATIENCE."""
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
