"""Durations as Go writes them: `1h30m`, `72h0m0s`, `500ms`."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 2**63 / 1e9  # seconds; Go counts nanoseconds in 64 bits
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+", re.ASCII)
_UNFINISHED = re.compile(rf"[+-]?(?:{_PART.pattern})*(?:\d+(?:\.\d*)?|\.\d+)(?P<unit>[^\d.]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return seconds. Raises ValueError for what Go's time.ParseDuration refuses, a bare number included."""
    if text.lstrip("+-") == "0":
        return 0.0
    if not _WHOLE.fullmatch(text):
        raise ValueError(_complaint(text))
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if seconds >= _LONGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    return -seconds if text.startswith("-") else seconds


def _complaint(text: str) -> str:
    """Return Go's error text for a text that is no duration."""
    unfinished = _UNFINISHED.match(text)
    if unfinished is None:
        return f'time: invalid duration "{text}"'
    if unfinished["unit"]:
        return f'time: unknown unit "{unfinished["unit"]}" in duration "{text}"'
    return f'time: missing unit in duration "{text}"'


def format_duration(seconds: float) -> str:
    """Return the text of Go's Duration.String, to the millisecond: `1h0m0s`, `10s`, `250ms`, `0s`."""
    if seconds == 0:
        return "0s"
    sign, milliseconds = ("-" if seconds < 0 else ""), round(abs(seconds) * 1000)
    if milliseconds < 1000:
        return f"{sign}{milliseconds}ms"
    whole, fraction = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest}.{fraction:03d}".rstrip("0") if fraction else str(rest)
    text = f"{tail}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"
