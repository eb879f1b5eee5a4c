"""Limits how often the log repeats one reason."""

from __future__ import annotations

from collections import Counter

import trio

LINES_PER_SECOND = 10  # of one reason


class RateLimit:
    """Allows `lines` of one reason in `seconds`; the others are counted, and reported with the next line."""

    def __init__(self, lines: int = LINES_PER_SECOND, seconds: float = 1.0) -> None:
        self._lines = lines
        self._seconds = seconds
        self._interval: dict[str, int] = {}  # the number of the present interval, by trio's clock
        self._written: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()

    def hidden(self, reason: str) -> int | None:
        """Return None to write no line, else how many lines were left out before this one."""
        interval = int(trio.current_time() / self._seconds)
        if self._interval.get(reason) != interval:
            self._interval[reason] = interval
            self._written[reason] = 0
        self._written[reason] += 1
        if self._written[reason] > self._lines:
            self._hidden[reason] += 1
            return None
        return self._hidden.pop(reason, 0)
