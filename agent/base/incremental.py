"""A value in the making: work that rests now and then, so that no connection waits for all of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeAlias, TypeVar

import trio

T = TypeVar("T")
Work: TypeAlias = Generator[None, None, T]  # yields to rest, returns the value


class Incremental(Generic[T]):
    """Work that has not begun. What it raises is raised by whoever has it done."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work

    async def together(self) -> T:
        """The value; at every rest all other tasks get their turn."""
        while True:
            try:
                next(self._work)
            except StopIteration as end:
                value: T = end.value
                return value
            await trio.lowlevel.checkpoint()

    def at_once(self) -> T:
        """The value, without a rest."""
        while True:
            try:
                next(self._work)
            except StopIteration as end:
                value: T = end.value
                return value
