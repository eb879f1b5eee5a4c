"""Counts durations in fixed buckets, for a histogram of Prometheus."""

from __future__ import annotations

from bisect import bisect_left

from agent.base.prometheus import Family, Kind

# Seconds. A handshake on one machine takes 2 ms, across a WAN of 80 ms some 250; the last are timeouts.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """The counts by bucket, and the sum in seconds."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: Family, **labels: str) -> None:
        """Add the samples: buckets that include the smaller ones, their number, and the sum."""
        total = 0
        for bound, count in zip((*map(_bound, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            family.add_part("_bucket", total, **labels, le=bound)
        family.add_part("_sum", self._sum, **labels)
        family.add_part("_count", total, **labels)


def histogram(name: str, says: str) -> Family:
    """Return a family for durations in seconds."""
    return Family(name, Kind.HISTOGRAM, says)


def _bound(seconds: float) -> str:
    return f"{seconds:g}"
