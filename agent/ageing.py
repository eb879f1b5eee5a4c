"""How long intentions are good: a list that Consul has not confirmed for too long lets nobody in.

Each process that judges callers ages its own copy, by what the copy says of itself: a worker whose control
process hangs does not go on for ever by what it was told last. The time is up when either clock says so: the
wall clock, which goes on while the machine sleeps, or trio's, which nobody sets back. What has become too old
is published as such, and so reaches new callers, open connections and readiness by the way every change goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import trio

from agent.base.latest import Latest
from agent.policy.intentions import Intentions

LOOK_SECONDS = 1.0  # the wall clock may be set, and the machine sleep, while we sleep on trio's


class AgeEvents(Protocol):
    """Who is told, once each time; must not block."""

    def intentions_too_old(self, since: datetime, /) -> None:
        """Nobody is let in by them any more."""

    def intentions_current(self) -> None:
        """They have been confirmed, or replaced."""


async def age(
    intentions: Latest[Intentions], clock: Callable[[], datetime], told: AgeEvents | None = None
) -> None:
    """Mark them as too old when they are, for ever; a newer answer takes their place unmarked."""
    was_old, version = False, 0
    while True:
        current, version = await intentions.newer(version)
        if was_old and not current.too_old:
            was_old = False
            if told is not None:
                told.intentions_current()
        if current.good_until is None or current.too_old:
            continue
        if await _outlived(intentions, version, current.good_until, clock):
            was_old = True
            intentions.publish(replace(current, too_old=True))
            if told is not None:
                told.intentions_too_old(current.good_until)


async def _outlived(
    intentions: Latest[Intentions], version: int, good_until: datetime, clock: Callable[[], datetime]
) -> bool:
    """Wait for the end of that version's time; False if there is a newer one by then."""
    latest = trio.current_time() + (good_until - clock()).total_seconds()
    while intentions.version == version:
        rest = min((good_until - clock()).total_seconds(), latest - trio.current_time())
        if rest < 0:
            return True
        with trio.move_on_after(min(LOOK_SECONDS, rest + 0.001)):
            await intentions.newer(version)
    return False
