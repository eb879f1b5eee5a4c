"""Measures the difference between our clock and the Consul agent's, by the Date of its answers.

The servers' clocks date certificates, and ours judges them. With a skew of more than a minute a new leaf is
not valid yet, with one of a day every peer has expired. No certificate shows that cause, so it is measured
and reported.

An answer is dated when its head is written, and read at some time after that. So each answer gives a least
and a greatest skew, as far apart as it may have been under way, and the estimate moves no further than these
make it: a slow answer looks like a clock of ours that runs ahead, and is none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agent.base.clock import Clock

TOLERATED = 5.0  # seconds; Consul dates a leaf one minute back

_HALF = 0.5  # seconds: a Date has no fractions, so it is half a second old on average


class ClockSkew:
    """`seconds`: Consul's clock minus ours, as small as the answers allow; None before the first."""

    def __init__(self, clock: Clock, on_change: Callable[[float, bool], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self.seconds: float | None = None

    @property
    def notable(self) -> bool:
        """Whether the skew is more than networks explain."""
        return self.seconds is not None and abs(self.seconds) > TOLERATED

    def take(self, date: str, oldest: float) -> None:
        """Take the Date of an answer that has just come; a malformed one is ignored.

        `oldest`: the most seconds ago that the answer can have been dated.
        """
        theirs = parse_date(date)
        if theirs is None:
            return
        before = self.notable
        least = (theirs - self._clock()).total_seconds() + _HALF
        self.seconds = min(max(self.seconds or 0.0, least), least + oldest)
        if self.notable != before:
            self._on_change(self.seconds, self.notable)


def parse_date(text: str) -> datetime | None:
    """Return the time in a Date header, in any of the three forms of RFC 9110, 5.6.7; None if it has none."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # no date, such as the 31st of February, or an offset out of range
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # asctime names no zone: GMT is meant
