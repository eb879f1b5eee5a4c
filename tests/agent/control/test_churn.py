"""When leaves come too often."""

from __future__ import annotations

import pytest

from agent.control.churn import MOST_LEAVES, Churn

HOUR = 3600.0


@pytest.mark.parametrize(
    ("every", "life", "alarms"),
    [
        (20, 72 * HOUR, 1),
        (119, 72 * HOUR, 1),
        (121, 72 * HOUR, 0),
        (48, 180.0, 0),  # the shortest share of a life of two minutes and a minute back
        (25, 120.0, 0),
        (20, 120.0, 1),
    ],
)
def test_it_begins_once_with_too_many(every: float, life: float, alarms: int) -> None:
    churn = Churn()
    assert sum(churn.taken(every * number, life) for number in range(30)) == alarms


def test_it_says_how_many_and_ends_by_itself() -> None:
    churn = Churn()
    for number in range(MOST_LEAVES):
        churn.taken(20.0 * number, 72 * HOUR)
    assert churn.alarm(100) == "6 leaves within 100 s"
    assert churn.alarm(700) == ""
    assert not churn.taken(701, 72 * HOUR)
