"""Two clocks, read off a header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

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
        skew.take(date, 0)
    assert skew.seconds == 3600.5
    assert skew.notable
    skew.take("Sun, 22 Nov 2026 20:40:57 GMT", 0)
    assert told == [(3600.5, True), (-0.5, False)]


def dated(seconds: float) -> str:
    """The Date of a moment so many seconds after NOW."""
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


def measured(*answers: tuple[float, float]) -> ClockSkew:
    """The skew after answers: each with its Date, in seconds from NOW, and the most its age can be."""
    skew = ClockSkew(lambda: NOW, lambda _seconds, _notable: None)
    for seconds, age in answers:
        skew.take(dated(seconds), age)
    return skew


def test_a_slow_answer_is_no_clock_that_runs_ahead() -> None:
    skew = measured((-10, 10.2))
    assert skew.seconds == 0
    assert not skew.notable


def test_a_slow_answer_shows_what_its_slowness_does_not_explain() -> None:
    assert measured((-100, 10)).seconds == -89.5
    assert measured((-100, 10)).notable


def test_of_a_clock_behind_a_slow_answer_shows_the_least() -> None:
    assert measured((60, 10)).seconds == 60.5


def test_a_slow_answer_leaves_a_skew_that_it_allows() -> None:
    assert measured((-30, 0), (-60, 60)).seconds == -29.5
    assert measured((-30, 0), (0, 60)).seconds == 0.5


@given(
    st.floats(-1e5, 1e5),
    st.floats(-1e5, 1e5),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1),
)
def test_no_delay_makes_a_skew_seem_greater_than_one_of_the_clocks_had(
    before: float, now: float, delays: list[tuple[float, float]]
) -> None:
    """The estimate stays between none and the greatest skew there has been, whatever the delays were."""
    skew = ClockSkew(lambda: NOW, lambda _seconds, _notable: None)
    skew.take(dated(before), 0)
    for delay, spare in delays:
        skew.take(dated(now - delay), delay + spare)
    assert skew.seconds is not None
    assert min(before, now, 0) - 1 <= skew.seconds <= max(before, now, 0) + 1
