"""A bound on how often the log says the same thing."""

from __future__ import annotations

from collections import Counter

import trio

LINES_PER_SECOND = 10  # of one reason


class RateLimit:
    """At most so many lines of one reason in a spell; the rest is counted and told with the next one."""

    def __init__(self, lines: int = LINES_PER_SECOND, seconds: float = 1.0) -> None:
        self._lines = lines
        self._seconds = seconds
        self._spell: dict[str, int] = {}  # of trio's clock
        self._told: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()

    def hidden(self, reason: str) -> int | None:
        """None: do not tell. Else how many were not told before."""
        spell = int(trio.current_time() / self._seconds)
        if self._spell.get(reason) != spell:
            self._spell[reason] = spell
            self._told[reason] = 0
        self._told[reason] += 1
        if self._told[reason] > self._lines:
            self._hidden[reason] += 1
            return None
        return self._hidden.pop(reason, 0)
