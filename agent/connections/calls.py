"""Counts ended connections by other end and verdict, and times their steps, in bounded tables.

The other end of an inbound connection is the proven caller, of an outbound one the upstream. Callers choose
neither: a name is counted only once its certificate is proven, so there are as many as the mesh has. Beyond
MOST of them all further ones share a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from agent.base.histogram import Histogram
from agent.base.prometheus import Family
from agent.connections.records import CloseReason, Direction, Finished

MOST = 100  # other ends of each direction that have a row of their own
OTHERS = "others"
UNPROVEN = "unproven"  # a caller whose identity was not proven
ALLOWED = "allowed"
# After the first bytes, by the far side (by name: its reasons are of a room above) or by a later verdict.
_REFUSED_LATE = frozenset(
    {
        *("denied_by_peer", "refused_by_peer"),
        *(CloseReason.INTENTION_WITHDRAWN, CloseReason.INTENTIONS_TOO_OLD, CloseReason.NARROWED),
        *(CloseReason.DENY_LISTED, CloseReason.ROOT_REMOVED, CloseReason.PEER_EXPIRED),
    }
)
STEPS = ("queue", "handshake", "connect", "first_byte")


class CallTable:
    """The counts. A row is never given up, since a counter must not go back."""

    def __init__(self) -> None:
        self._counts: dict[Direction, dict[str, Counter[str]]] = {direction: {} for direction in Direction}

    def add(self, finished: Finished) -> None:
        """Count an ended connection."""
        rows, name = self._counts[finished.direction], _other_end(finished)
        row = rows.get(name)
        if row is None:
            row = rows.setdefault(name if len(rows) < MOST else OTHERS, Counter())
        row[_verdict(finished)] += 1

    def counts(self, direction: Direction) -> Mapping[str, Mapping[str, int]]:
        """Return the counts by other end and verdict."""
        return {name: dict(verdicts) for name, verdicts in self._counts[direction].items()}


class Timings:
    """How long the steps of ended connections took, and a change until all were judged by it."""

    def __init__(self) -> None:
        self._of = {
            direction: (Histogram(), Histogram(), Histogram(), Histogram()) for direction in Direction
        }
        self.rejudged = Histogram()

    def add(self, finished: Finished) -> None:
        """Count the steps that the connection has passed."""
        queue, handshake, connect, first_byte = self._of[finished.direction]
        if finished.queue_seconds is not None:
            queue.observe(finished.queue_seconds)
        if finished.handshake_seconds is not None:
            handshake.observe(finished.handshake_seconds)
        if finished.connect_seconds is not None:
            connect.observe(finished.connect_seconds)
        if finished.first_byte_seconds is not None:
            first_byte.observe(finished.first_byte_seconds)

    def add_to(self, family: Family) -> Family:
        """Add the histograms to the family, and return it."""
        for direction, histograms in self._of.items():
            for step, counted in zip(STEPS, histograms, strict=True):
                counted.add_to(family, direction=direction.value, step=step)
        return family


def _other_end(finished: Finished) -> str:
    if finished.direction is Direction.OUTBOUND:
        return finished.upstream
    if finished.theirs is None:
        return UNPROVEN
    return f"{finished.theirs.id.service}@{finished.theirs.id.datacenter}"


def _verdict(finished: Finished) -> str:
    served = finished.opened and finished.reason not in _REFUSED_LATE
    return ALLOWED if served else finished.reason.value
