"""The alarm of a leaf's life."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from certs.renewal import CEILING, FLOOR, Freshness, freshness, next_ask
from tests.certs.fitting import AT

HOUR = timedelta(hours=1)
LIFE = 72 * HOUR
END = AT + LIFE


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (-HOUR, Freshness.NOT_YET_VALID),
        (0 * HOUR, Freshness.FRESH),
        (47 * HOUR, Freshness.FRESH),
        (48 * HOUR, Freshness.DUE),
        (72 * HOUR, Freshness.DUE),
        (72 * HOUR + timedelta(microseconds=1), Freshness.EXPIRED),
    ],
)
def test_freshness(after: timedelta, expected: Freshness) -> None:
    assert freshness(AT, END, AT + after) is expected


def asks(at_offset: timedelta, life: timedelta = LIFE, ceiling: timedelta = 1000 * HOUR) -> list[timedelta]:
    rng = Random(7)
    return [next_ask(AT, AT + life, AT + at_offset, rng, ceiling=ceiling) for _ in range(500)]


def test_first_alarm_is_at_two_thirds_of_the_life_with_jitter() -> None:
    waits = asks(0 * HOUR)
    assert 43.8 * HOUR < min(waits) < 45.5 * HOUR
    assert 50.5 * HOUR < max(waits) < 52.2 * HOUR
    assert abs(sum(waits, timedelta()) / len(waits) - 48 * HOUR) < HOUR / 2
    assert len(set(waits)) > 400


def test_after_the_alarm_it_asks_more_and_more_often() -> None:
    waits = [max(asks(LIFE * share)) for share in (0.75, 0.9, 0.99)]
    assert waits == sorted(waits, reverse=True)
    assert max(waits) < LIFE / 8


def test_before_the_alarm_it_waits_for_it_however_near() -> None:
    waits = asks(30 * HOUR)
    assert 14 * HOUR < min(waits) < 15.5 * HOUR
    assert 20.5 * HOUR < max(waits) < 22 * HOUR


def test_past_the_alarm_it_asks_when_an_eighth_of_what_is_left_has_gone() -> None:
    waits = asks(64 * HOUR)  # eight hours before the end
    assert 0.94 * HOUR < min(waits) < 0.96 * HOUR
    assert 1.04 * HOUR < max(waits) < 1.06 * HOUR


def test_never_sooner_than_the_floor() -> None:
    assert set(asks(LIFE + HOUR)) == {FLOOR}
    assert min(asks(timedelta(0), life=timedelta(seconds=3))) == FLOOR


def test_never_later_than_the_ceiling() -> None:
    assert set(asks(0 * HOUR, ceiling=CEILING)) == {CEILING}


def test_same_seed_same_wait() -> None:
    assert next_ask(AT, END, AT, Random(1)) == next_ask(AT, END, AT, Random(1))


def test_a_leaf_of_tomorrow_is_asked_for_within_its_life() -> None:
    assert next_ask(AT, END, AT - HOUR, Random(1), ceiling=1000 * HOUR) > 40 * HOUR
