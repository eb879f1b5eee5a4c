"""When a workload was last heard of, for its TTL checks. In memory: a restart has heard of nobody."""

from __future__ import annotations

import trio


class Heartbeats:
    """One event per TTL check."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: dict[str, trio.Event] = {}

    def beat(self, check: str) -> None:
        """The workload has said something about this check."""
        self._heard.pop(check, trio.Event()).set()

    async def next(self, check: str) -> None:
        """Wait for the next word about this check."""
        await self._heard.setdefault(check, trio.Event()).wait()
