"""A ring of samples: the last ten minutes of an agent, for the sparklines of its page.

It takes 11 KB: eleven arrays of 120 numbers of eight bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from agent.base.prometheus import Family
from agent.observe.agent import Agent
from agent.proxy.report import STEP_SECONDS
from agent.relay.splice import Ending

EVERY = 5.0  # seconds
COUNT = 120  # samples

# Means of an interval: the sum of a step's seconds, and how many connections have passed it.
_MEANS = {"first_byte": ("first_byte", "first_bytes"), "handshake": ("handshake", "handshakes")}
FIELDS = (
    *("at", "live", "ended", "refused", "to_plain", "to_tls", "lag"),
    *(name for pair in _MEANS.values() for name in pair),
)


class Ring:
    """The newest COUNT samples. `at` in seconds since 1970; `lag`: how late the loop woke, in seconds."""

    __slots__ = ("_columns", "_next", "taken")

    def __init__(self) -> None:
        self._columns = {name: array("d", bytes(8 * COUNT)) for name in FIELDS}
        self._next = 0
        self.taken = 0

    def take(self, **sample: float) -> None:
        """Keep a sample, a number for each of FIELDS, in the place of the oldest one."""
        for name in FIELDS:
            self._columns[name][self._next] = sample[name]
        self._next = (self._next + 1) % COUNT
        self.taken = min(self.taken + 1, COUNT)

    def columns(self) -> dict[str, list[float]]:
        """Return the samples by field, oldest first."""
        places = [(self._next - self.taken + place) % COUNT for place in range(self.taken)]
        return {name: [column[place] for place in places] for name, column in self._columns.items()}


async def keep(agent: Agent, ring: Ring) -> None:
    """Take a sample every EVERY seconds, until cancelled."""
    while True:
        before = trio.current_time()
        await trio.sleep(EVERY)
        lag = max(0.0, trio.current_time() - before - EVERY)
        agent.loop_lag.observe(lag)
        report = await agent.data.report(rows=False)
        at = agent.control.clock().timestamp()
        counted = {**totals(report.counters), **steps(report.metrics)}
        ring.take(at=at, lag=lag, live=report.live, **counted)


def totals(counters: Mapping[str, Any]) -> dict[str, float]:
    """Return how many connections have ended, how many of them not in order, and the bytes on each leg."""
    endings = [count for counts in counters["endings"].values() for count in counts.items()]
    moved = counters["bytes"].values()
    return {
        "ended": sum(count for _, count in endings),
        "refused": sum(count for reason, count in endings if reason != Ending.CLEAN.value),
        "to_plain": sum(legs["to_plain"] for legs in moved),
        "to_tls": sum(legs["to_tls"] for legs in moved),
    }


def steps(families: Iterable[Family]) -> dict[str, float]:
    """Return the seconds and the number of the steps in _MEANS, of ended connections in both directions.

    They are 0 where the family is missing: with workers it is theirs, and none may have answered yet.
    """
    timed = [family for family in families if family.name == STEP_SECONDS]
    found: dict[str, float] = {}
    for step, (seconds, number) in _MEANS.items():
        found[seconds] = sum(family.sum_of("_sum", step=step) for family in timed)
        found[number] = sum(family.sum_of("_count", step=step) for family in timed)
    return found
