"""Two clocks, read off a header."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.control.clock_skew import ClockSkew, parse_date

NOW = datetime(2026, 11, 22, 20, 40, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["Sun, 22 Nov 2026 20:40:58 GMT", "Sunday, 22-Nov-26 20:40:58 GMT", "Sun Nov 22 20:40:58 2026"],
)
def test_a_date_is_read_in_each_of_the_three_forms_of_http(text: str) -> None:
    assert parse_date(text) == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 22 Now 2026 20:40:58 GMT",
        "Sun, 31 Feb 2026 20:40:58 GMT",
        "Sun, 22 Nov 0 20:40:58 +99999999999999999999",
        f"Sun, {'9' * 5000} Nov 2026 20:40:58 GMT",
    ],
)
def test_what_is_no_date_is_left_aside(text: str) -> None:
    assert parse_date(text) is None


DATE_LIKE = st.from_regex(r"[A-Z][a-z]{2},? *\d{1,2}[ -](Nov|Feb)[ -]\d{1,5} \d+:\d+(:\d+)? *(GMT|[+-]?\d+|)")


@given(st.text() | DATE_LIKE)
def test_no_text_raises_and_a_date_always_has_a_zone(text: str) -> None:
    date = parse_date(text)
    assert date is None or date.tzinfo is not None


def test_a_skew_is_told_when_it_begins_to_matter_and_when_it_ends() -> None:
    told: list[tuple[float, bool]] = []
    skew = ClockSkew(lambda: NOW, lambda seconds, notable: told.append((seconds, notable)))
    for date in ("", "Sun, 22 Nov 2026 20:41:00 GMT", "Sun, 22 Nov 2026 21:40:58 GMT", "never"):
        skew.take(date)
    assert skew.seconds == 3600.5
    assert skew.notable
    skew.take("Sun, 22 Nov 2026 20:40:57 GMT")
    assert told == [(3600.5, True), (-0.5, False)]
