"""Counts the calls of each endpoint and their durations since the start, and the reads that wait now."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Durations:
    """The durations of the calls of one kind, in milliseconds as in Consul."""

    __slots__ = ("_squares", "count", "least", "most", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.least = self.most = self._squares = 0.0

    def add(self, milliseconds: float) -> None:
        """Add one duration."""
        self.least = min(self.least, milliseconds) if self.count else milliseconds
        self.most = max(self.most, milliseconds)
        self.count += 1
        self.sum += milliseconds
        self._squares += milliseconds * milliseconds

    @property
    def mean(self) -> float:
        """The mean; 0 without a call."""
        return self.sum / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The sample's standard deviation; 0 with fewer than two calls."""
        if self.count < 2:
            return 0.0
        return math.sqrt(max(0.0, self._squares - self.sum * self.mean) / (self.count - 1))


class Tally:
    """The counters of one datacenter. `calls` by method and label; `held`: blocking reads that wait."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], Durations] = {}
        self.held = 0

    @contextmanager
    def call(self, method: str, path: str) -> Iterator[None]:
        """Count the call of a route when the block ends, in whatever way."""
        began = trio.current_time()
        try:
            yield
        finally:
            key = method, label(path)
            self.calls.setdefault(key, Durations()).add((trio.current_time() - began) * 1000)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Count one waiting read within the block."""
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


def label(path: str) -> str:
    """Return Consul's label of a path: its part before the first name, as in `v1_health_connect_`."""
    return path.partition("{")[0].removeprefix("/").replace("/", "_")
