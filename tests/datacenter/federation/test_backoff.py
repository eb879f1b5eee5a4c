"""Pauses between attempts."""

from __future__ import annotations

import random

from datacenter.federation.backoff import LONGEST_SECONDS, Backoff


def test_pauses_double_up_to_half_a_minute_and_begin_again() -> None:
    backoff = Backoff(random.Random(1))
    pauses = [backoff.next() for _ in range(2000)]
    for failures, pause in enumerate(pauses[:6]):
        middle = min(2.0**failures, LONGEST_SECONDS)
        assert 0.75 * middle <= pause <= 1.25 * middle
    assert all(0.75 * LONGEST_SECONDS <= pause <= 1.25 * LONGEST_SECONDS for pause in pauses[5:])
    assert max(pauses) - min(pauses[5:]) > LONGEST_SECONDS / 3
    backoff.reset()
    assert backoff.next() <= 1.25
