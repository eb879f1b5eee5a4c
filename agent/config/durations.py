"""Durations as Go writes them: `10s`, `1h30m`, `1.5s`, `300ms`."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 2**63 / 1e9  # seconds; Go counts nanoseconds in 64 bits
# One way to read each digit: otherwise a long row of them takes the square of its length.
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"(?:{_PART})+", re.ASCII)
_PARTS = re.compile(_PART, re.ASCII)


class InvalidDuration(ValueError):
    """Not a duration; the text shows the value and the remedy."""


def parse_duration(text: str) -> float:
    """Seconds, not negative; `0` needs no unit. Raises InvalidDuration."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise InvalidDuration(f"{text!r} is not a duration; write one as 10s, 300ms or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    if seconds >= _LONGEST:
        raise InvalidDuration(f"{text!r} is longer than the 292 years that Go can count")
    return seconds
