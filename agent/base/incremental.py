"""Work on a large value in steps, so that connections are served between two steps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeAlias, TypeVar

import trio

T = TypeVar("T")
Work: TypeAlias = Generator[None, None, T]  # each yield lets other tasks run; the return value is the result


class Incremental(Generic[T]):
    """Work that has not begun. Its errors are raised by the call that runs it."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work

    async def run(self) -> T:
        """Run the work and return its result; all other tasks run at every step."""
        while True:
            try:
                next(self._work)
            except StopIteration as end:
                value: T = end.value
                return value
            await trio.lowlevel.checkpoint()

    def run_now(self) -> T:
        """Run the work without a pause and return its result."""
        while True:
            try:
                next(self._work)
            except StopIteration as end:
                value: T = end.value
                return value
