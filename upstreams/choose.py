"""In which order to try the endpoints for one connection.

Passing before warning, each group in weighted random order; endpoints that failed a moment ago come last but
are never dropped: when all have failed, all are tried again. Critical ones are not candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random

from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, Status

HOLD = timedelta(seconds=10)
_LEAST_WEIGHT = 1e-6  # weight 0 means "only if nothing else is left", not "never"


class FailureMemory:
    """Which endpoints failed within the last `hold`, by their key, across answers."""

    __slots__ = ("_clock", "_failed", "_hold")

    def __init__(self, clock: Callable[[], datetime], hold: timedelta = HOLD) -> None:
        self._clock = clock
        self._hold = hold
        self._failed: dict[EndpointKey, datetime] = {}

    def failed(self, endpoint: Endpoint) -> None:
        """Note that dialling, the handshake or the identity of this endpoint failed just now."""
        self._failed[endpoint.key] = self._clock()

    def succeeded(self, endpoint: Endpoint) -> None:
        """Forget an earlier failure."""
        self._failed.pop(endpoint.key, None)

    def recent(self) -> frozenset[EndpointKey]:
        """The endpoints to try last. Forgets what is older than the hold."""
        oldest = self._clock() - self._hold
        for key in [key for key, at in self._failed.items() if at <= oldest]:
            del self._failed[key]
        return frozenset(self._failed)


def candidates(endpoints: EndpointSet, health: FailureMemory, rng: Random) -> Iterator[Endpoint]:
    """The endpoints in the order to try them, each once.

    The order is found out only as far as it is asked for: the usual caller takes one.
    """
    failed = health.recent()
    for group in _groups(endpoints, failed):
        yield from _weighted(group, rng)


def _groups(endpoints: EndpointSet, failed: frozenset[EndpointKey]) -> Iterator[list[Endpoint]]:
    for in_disgrace in (False, True):
        for status in (Status.PASSING, Status.WARNING):
            yield [
                endpoint
                for endpoint in endpoints.endpoints
                if endpoint.status is status and (endpoint.key in failed) is in_disgrace
            ]


def _weighted(group: list[Endpoint], rng: Random) -> Iterator[Endpoint]:
    """Weighted draws without replacement: the first alone, the rest in one go only when the first failed."""
    if not group:
        return
    weights = [max(endpoint.weight, _LEAST_WEIGHT) for endpoint in group]
    (first,) = rng.choices(range(len(group)), weights)
    yield group[first]
    # Efraimidis and Spirakis: ordering by u^(1/w), in logarithms, is drawing by weight one after the other.
    keyed = [(math.log(1.0 - rng.random()) / weights[i], i) for i in range(len(group)) if i != first]
    for _, i in sorted(keyed, reverse=True):
        yield group[i]
