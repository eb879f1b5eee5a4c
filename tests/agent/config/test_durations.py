"""Go's durations."""

from __future__ import annotations

import pytest

from agent.config.durations import InvalidDuration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("10s", 10.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("300ms", 0.3),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("2μs", 2e-6),
        ("5ns", 5e-9),
        ("1m1s1ms", 61.001),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-1s", "+1s", "1d", "1s2", "1,5s", "1..5s", "٣s", "1S"]
)
def test_mistakes_show_the_value_and_a_remedy(text: str) -> None:
    with pytest.raises(InvalidDuration, match="write one as 10s") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


def test_a_long_row_of_digits_is_no_work() -> None:
    """Were there several ways to read it, this would not end."""
    with pytest.raises(InvalidDuration):
        parse_duration("9" * 200_000)
    assert parse_duration("0" * 200_000 + "h") == 0.0


def test_what_go_cannot_count_is_too_long() -> None:
    assert parse_duration("2562047h") == 2562047 * 3600
    with pytest.raises(InvalidDuration, match="longer than the 292 years"):
        parse_duration("2562048h")
