"""Two clocks, read off a header."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.clock_skew import ClockSkew, parse_date

NOW = datetime(2026, 11, 22, 20, 40, 58, tzinfo=UTC)


def test_a_date_is_read_as_http_writes_it() -> None:
    assert parse_date("Sun, 22 Nov 2026 20:40:58 GMT") == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun, 22 Now 2026 20:40:58 GMT",
        "Sun, 31 Feb 2026 20:40:58 GMT",
        "Sun, 22 Nov 2026 20:40:58 +0000",
        "Sunday, 22-Nov-26 20:40:58 GMT",
        "Sun, ٢٢ Nov 2026 20:40:58 GMT",
    ],
)
def test_what_is_no_date_is_left_aside(text: str) -> None:
    assert parse_date(text) is None


def test_a_skew_is_told_when_it_begins_to_matter_and_when_it_ends() -> None:
    told: list[tuple[float, bool]] = []
    skew = ClockSkew(lambda: NOW, lambda seconds, notable: told.append((seconds, notable)))
    for date in ("", "Sun, 22 Nov 2026 20:41:00 GMT", "Sun, 22 Nov 2026 21:40:58 GMT", "never"):
        skew.take(date)
    assert skew.seconds == 3600.5
    assert skew.notable
    skew.take("Sun, 22 Nov 2026 20:40:57 GMT")
    assert told == [(3600.5, True), (-0.5, False)]
