"""When to ask for the next leaf: the alarm beside the blocking read.

Consul renews a leaf only while somebody asks, at a random point in 60-90 % of its life
(docs/consul-api.md#leaf). The watch keeps one blocking read open; this alarm at two thirds of the life reads
without an index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

SHARE_OF_LIFE = 2 / 3
JITTER = 0.05  # of the life, to either side: a fleet started together does not ask together
REPEATS = 8  # past the alarm, ask again each time an eighth of what is left has gone
FLOOR = timedelta(seconds=5)
CEILING = timedelta(hours=24)


class Freshness(StrEnum):
    """Where in its life a leaf is."""

    NOT_YET_VALID = "not_yet_valid"
    FRESH = "fresh"
    DUE = "due"
    EXPIRED = "expired"


def freshness(not_before: datetime, not_after: datetime, at: datetime) -> Freshness:
    """Fresh until two thirds of the life, then due; usable up to and including `not_after`."""
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
    """How long to wait, from `at`, before asking for a new leaf: never under `floor` nor over `ceiling`.

    Before two thirds of the life (with jitter) wait for that moment; after it ask more and more often. An
    expired leaf is asked for every `floor`.
    """
    life = not_after - not_before
    share = SHARE_OF_LIFE + rng.uniform(-JITTER, JITTER)
    wait = not_before + life * share - at
    if wait <= timedelta(0):
        wait = (not_after - at) / REPEATS * (1 + rng.uniform(-JITTER, JITTER))
    return max(floor, min(ceiling, wait))
