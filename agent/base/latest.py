"""One writer, many readers, only the newest value: how each watched value reaches its point of use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Latest(Generic[T]):
    """A cell that holds the newest published value and wakes every reader that waits for the next one.

    A reader never sees a torn or an older value. A slow reader skips the values in between: readers need the
    newest state, not its history. `moment`: when the newest was published, by trio's clock.
    """

    __slots__ = ("_changed", "_value", "_version", "moment")

    def __init__(self, value: T | None = None) -> None:
        self._value = value
        self._version = 0 if value is None else 1
        self._changed = trio.Event()
        self.moment = 0.0

    def __repr__(self) -> str:
        return f"<Latest version={self._version}>"  # the value may hold secrets

    @property
    def value(self) -> T | None:
        """The newest value, or None before the first."""
        return self._value

    @property
    def version(self) -> int:
        """How many values have been published; 0 before the first."""
        return self._version

    def publish(self, value: T) -> None:
        """Replace the value and wake every waiter. Never blocks."""
        self._value = value
        self._version += 1
        if trio.lowlevel.in_trio_run():
            self.moment = trio.current_time()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def newer(self, version: int) -> tuple[T, int]:
        """Wait for a value published after `version`; return it with its own version."""
        while self._version <= version or self._value is None:
            await self._changed.wait()
        return self._value, self._version

    async def first(self) -> T:
        """Wait for the first value and return the newest one."""
        return (await self.newer(0))[0]


async def any_newer(cells: Iterable[tuple[Latest[T], int]]) -> None:
    """Wait until one of the cells has a value newer than the version beside it."""

    async def wait(cell: Latest[T], version: int) -> None:
        await cell.newer(version)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for cell, version in cells:
            nursery.start_soon(wait, cell, version)
