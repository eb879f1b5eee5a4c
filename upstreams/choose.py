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
_DRAWS = 8


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

    The first is drawn without a look at the others, since the usual connection needs no second; the order of
    the rest is found out when it is asked for.
    """
    failed = health.recent()
    first = _draw(endpoints, failed, rng)
    if first is not None:
        yield first
    for group in _groups(endpoints, failed):
        yield from _weighted([endpoint for endpoint in group if endpoint is not first], rng)


def _draw(endpoints: EndpointSet, failed: frozenset[EndpointKey], rng: Random) -> Endpoint | None:
    """One of the passing endpoints by weight; None if there are none, or so many failed that draws miss."""
    for _ in range(_DRAWS if endpoints.passing else 0):
        (drawn,) = rng.choices(endpoints.passing, cum_weights=endpoints.passing_weights)
        if not failed or drawn.key not in failed:
            return drawn
    return None


def _groups(endpoints: EndpointSet, failed: frozenset[EndpointKey]) -> Iterator[list[Endpoint]]:
    for in_disgrace in (False, True):
        for status in (Status.PASSING, Status.WARNING):
            yield [
                endpoint
                for endpoint in endpoints.endpoints
                if endpoint.status is status and (endpoint.key in failed) is in_disgrace
            ]


def _weighted(group: list[Endpoint], rng: Random) -> list[Endpoint]:
    """Efraimidis and Spirakis: to order by u^(1/w), here in logarithms, is to draw by weight one by one."""
    keyed = [(math.log(1.0 - rng.random()) / endpoint.odds, i) for i, endpoint in enumerate(group)]
    return [group[i] for _, i in sorted(keyed, reverse=True)]
