"""How far our clock is from that of the Consul agent, read off the Date of its answers.

Certificates are dated by the servers' clocks and judged by ours. A skew of more than a minute makes a new
leaf not valid yet, one of a day makes every peer look expired: the reason is then in no certificate, so it
is measured and said.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agent.base.clock import Clock

TOLERATED = 5.0  # seconds; Consul dates a leaf a minute back

_HALF = 0.5  # a Date has no fractions: on average it is half a second old


class ClockSkew:
    """`seconds` is their clock minus ours at the last answer; None before the first that had a date."""

    def __init__(self, clock: Clock, told: Callable[[float, bool], None]) -> None:
        self._clock = clock
        self._told = told
        self.seconds: float | None = None

    @property
    def notable(self) -> bool:
        """Whether it is more than certificates and networks explain."""
        return self.seconds is not None and abs(self.seconds) > TOLERATED

    def take(self, date: str) -> None:
        """The Date header of an answer that has just come; one that is none is left aside."""
        theirs = parse_date(date)
        if theirs is None:
            return
        before = self.notable
        self.seconds = (theirs - self._clock()).total_seconds() + _HALF
        if self.notable != before:
            self._told(self.seconds, self.notable)


def parse_date(text: str) -> datetime | None:
    """Return the time a Date header names, in any of the three forms of RFC 9110, 5.6.7, else None."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # not a date, the 31st of February; an offset beyond all calendars
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # asctime names no zone: GMT is meant
