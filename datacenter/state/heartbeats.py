"""The last news of workloads about their TTL checks, in memory: after a restart there are none."""

from __future__ import annotations

import trio


class Heartbeats:
    """One event per TTL check."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: dict[str, trio.Event] = {}

    def beat(self, check: str) -> None:
        """Note news of this check."""
        self._heard.pop(check, trio.Event()).set()

    async def next(self, check: str) -> None:
        """Wait for the next news of this check."""
        await self._heard.setdefault(check, trio.Event()).wait()
