"""Go's durations, both ways."""

from __future__ import annotations

import pytest

from datacenter.state.durations import format_duration, parse_duration

GOOD = {
    "10s": 10.0,
    "1h30m": 5400.0,
    "72h": 259200.0,
    "1.5s": 1.5,
    ".5m": 30.0,
    "250ms": 0.25,
    "3us": 3e-6,
    "3µs": 3e-6,
    "3μs": 3e-6,  # the Greek letter
    "5ns": 5e-9,
    "0": 0.0,
    "-10s": -10.0,
}


@pytest.mark.parametrize(("text", "seconds"), GOOD.items())
def test_parse(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "invalid duration"),
        ("s", "invalid duration"),
        ("one hour", "invalid duration"),
        ("--1s", "invalid duration"),
        ("2562048h", "invalid duration"),  # over 64 bits of nanoseconds
        ("٣s", "invalid duration"),
        ("10", "missing unit in duration"),
        ("1h30", "missing unit in duration"),
        ("1x", 'unknown unit "x" in duration'),
        ("1s ", 'unknown unit "s " in duration'),
    ],
)
def test_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f'^time: {complaint} "{text}"$'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (10, "10s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (259200, "72h0m0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (-10, "-10s"),
    ],
)
def test_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
