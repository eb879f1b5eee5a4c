"""Sums repeated lines of the log: some of one kind in a minute are written, the others counted.

The last line of a kind that was left out is kept, and written with the count of the others some seconds
later, so that each count is seen although no more such lines come.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

LINES = 10  # of one kind, written in
WINDOW = 60.0  # seconds
SUM_SECONDS = 10.0  # between two sums of one kind
MOST_KINDS = 1000

Line = TypeVar("Line")


@dataclass(slots=True)
class _Kind(Generic[Line]):
    """What has come of one kind. `window`: the number of the present window, by trio's clock."""

    window: int
    written: int = 0
    hidden: int = 0
    last: Line | None = None


class Repeats(Generic[Line]):
    """Allows LINES of one kind in a window; the others are counted, and summed by `sums`."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind[Line]] = {}

    def hidden(self, kind: Hashable, line: Line) -> int | None:
        """Return None to write no line, else how many were left out before this one."""
        found = self._found(kind)
        if found is None:
            return 0
        found.written += 1
        if found.written > LINES:
            found.hidden += 1
            found.last = line
            return None
        hidden, found.hidden, found.last = found.hidden, 0, None
        return hidden

    def is_full(self, kind: Hashable) -> bool:
        """Return whether the next line of the kind will be left out."""
        found = self._found(kind)
        return found is not None and found.written >= LINES

    def sums(self) -> Iterator[tuple[Line, int]]:
        """Yield the last line of each kind that was left out, and how many others; begin to count anew."""
        for found in self._kinds.values():
            line, hidden = found.last, found.hidden
            found.last, found.hidden = None, 0
            if line is not None:
                yield line, hidden - 1

    def _found(self, kind: Hashable) -> _Kind[Line] | None:
        """Return what has come of the kind in this window; None before trio's loop runs."""
        if not trio.lowlevel.in_trio_run():
            return None
        window = int(trio.current_time() / WINDOW)
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= MOST_KINDS:
                self._forget(window)
            found = self._kinds.setdefault(kind if len(self._kinds) < MOST_KINDS else None, _Kind(window))
        if found.window != window:
            found.window, found.written = window, 0
        return found

    def _forget(self, window: int) -> None:
        """Forget the kinds that have not come in this window, and of which no line waits."""
        self._kinds = {k: v for k, v in self._kinds.items() if v.window == window or v.hidden}
