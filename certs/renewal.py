"""When to ask for the next leaf, beside the blocking query.

Consul renews a leaf only while a client asks, at a random point in 60-90 % of its life
(docs/consul-api.md#leaf). The watch keeps one blocking query open; this alarm at two thirds of the life asks
without an index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

SHARE_OF_LIFE = 2 / 3
JITTER = 0.05  # of the life, to either side, so that agents started together do not ask together
REPEATS = 8  # after the alarm, the next question follows after an eighth of the time left
FLOOR = timedelta(seconds=5)
CEILING = timedelta(hours=24)


class Freshness(StrEnum):
    """The state of a leaf within its life."""

    NOT_YET_VALID = "not_yet_valid"
    FRESH = "fresh"
    DUE = "due"
    EXPIRED = "expired"


def freshness(not_before: datetime, not_after: datetime, at: datetime) -> Freshness:
    """Return FRESH until two thirds of the life, then DUE.

    A leaf is usable up to and including `not_after`.
    """
    if at < not_before:
        return Freshness.NOT_YET_VALID
    if at > not_after:
        return Freshness.EXPIRED
    due = not_before + (not_after - not_before) * SHARE_OF_LIFE
    return Freshness.DUE if at >= due else Freshness.FRESH


def next_ask(
    not_before: datetime,
    not_after: datetime,
    at: datetime,
    rng: Random,
    *,
    floor: timedelta = FLOOR,
    ceiling: timedelta = CEILING,
) -> timedelta:
    """Return how long to wait from `at` before asking for a new leaf, between `floor` and `ceiling`.

    Before two thirds of the life (with jitter) that moment is waited for; after it the questions become more
    and more frequent. An expired leaf is asked for every `floor`.
    """
    life = not_after - not_before
    share = SHARE_OF_LIFE + rng.uniform(-JITTER, JITTER)
    wait = not_before + life * share - at
    if wait <= timedelta(0):
        wait = (not_after - at) / REPEATS * (1 + rng.uniform(-JITTER, JITTER))
    return max(floor, min(ceiling, wait))
