"""When leaves come too often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.control.churn import MOST_LEAVES, Churn

START = datetime(2031, 5, 17, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("every", "life", "alarms"),
    [
        (20, timedelta(hours=72), 1),
        (119, timedelta(hours=72), 1),
        (121, timedelta(hours=72), 0),
        (48, timedelta(seconds=180), 0),  # the shortest share of a life of two minutes and a minute back
        (25, timedelta(seconds=120), 0),
        (20, timedelta(seconds=120), 1),
    ],
)
def test_it_begins_once_with_too_many(every: float, life: timedelta, alarms: int) -> None:
    churn = Churn()
    assert sum(churn.taken(after(every * number), life) for number in range(30)) == alarms


def test_it_says_how_many_and_ends_by_itself() -> None:
    churn = Churn()
    for number in range(MOST_LEAVES):
        churn.taken(after(20 * number), timedelta(hours=72))
    assert churn.alarm(after(100)) == "6 leaves within 100 s"
    assert churn.alarm(after(700)) == ""
    assert not churn.taken(after(701), timedelta(hours=72))
