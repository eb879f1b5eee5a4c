"""How often each endpoint was called since the start, how long that took, and how many reads are held now."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Durations:
    """Of the finished calls of one kind; milliseconds, as Consul has them."""

    __slots__ = ("_squares", "count", "least", "most", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.least = self.most = self._squares = 0.0

    def add(self, milliseconds: float) -> None:
        """One more."""
        self.least = min(self.least, milliseconds) if self.count else milliseconds
        self.most = max(self.most, milliseconds)
        self.count += 1
        self.sum += milliseconds
        self._squares += milliseconds * milliseconds

    @property
    def mean(self) -> float:
        """0 without any."""
        return self.sum / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Of the sample; 0 below two."""
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
        """Counts one call of a route when it is over, however it ends."""
        began = trio.current_time()
        try:
            yield
        finally:
            key = method, label(path)
            self.calls.setdefault(key, Durations()).add((trio.current_time() - began) * 1000)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """One read waits during the block."""
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


def label(path: str) -> str:
    """As Consul labels a path: up to the first name in it, as in `v1_health_connect_`."""
    return path.partition("{")[0].removeprefix("/").replace("/", "_")
