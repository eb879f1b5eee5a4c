"""The order in which endpoints are tried for one connection.

Tiers come in order: passing before warning, near before far. Within a tier the first endpoint is drawn by
weight. The draws of one upstream are spread evenly: a few hundred connections have the shares that random
draws need many thousands for. A second draw replaces the first if its endpoint is clearly less loaded; so an
endpoint that is slow, and holds its connections longer, gets fewer than the others. Ejected endpoints come
last and are never dropped: when all are ejected, all are tried. Critical ones are not candidates.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from random import Random

from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, Tier

Loads = Mapping[EndpointKey, int]  # each endpoint's connections now, those still being opened included

_DRAWS = 8
_STEP = (
    math.sqrt(5) - 1
) / 2  # the golden ratio is far from every fraction, so callers' rhythms cannot match it
_CHANCE = 2  # connections: a smaller difference of loads means nothing


class Chance:
    """The random numbers of one upstream, of which the first draws form one even sequence.

    `even` is an additive recurrence: the fractions of multiples of the golden ratio, from a random start.
    Among n of its numbers every interval holds its share of n, give or take a few.
    """

    __slots__ = ("_at", "rng")

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._at = rng.random()

    def even(self) -> float:
        """Return the next number of the sequence, in [0, 1)."""
        self._at = (self._at + _STEP) % 1.0
        return self._at


def candidates(
    endpoints: EndpointSet, failures: FailureMemory, chance: Chance, loads: Loads | None = None
) -> Iterator[Endpoint]:
    """Yield the endpoints in the order to try them, each once."""
    return chain(
        in_favour(endpoints, failures, chance, loads or {}), last_resorts(endpoints, failures, chance)
    )


def in_favour(
    endpoints: EndpointSet, failures: FailureMemory, chance: Chance, loads: Loads
) -> Iterator[Endpoint]:
    """Yield the endpoints that are not ejected.

    The first is drawn without ordering the others, since most connections need no second one; the rest is
    ordered when it is asked for.
    """
    if not endpoints.tiers:
        return
    first = _first(endpoints.tiers[0], failures, chance, loads)
    if first is not None:
        yield first
    for tier in endpoints.tiers:
        yield from _by_weight([e for e in tier.endpoints if e is not first], failures, chance.rng)


def last_resorts(endpoints: EndpointSet, failures: FailureMemory, chance: Chance) -> Iterator[Endpoint]:
    """Yield the ejected endpoints."""
    for tier in endpoints.tiers:
        yield from _shuffled([(e, e.odds) for e in tier.endpoints if not failures.share(e)], chance.rng)


def any_in_favour(endpoints: EndpointSet, failures: FailureMemory) -> bool:
    """Return whether an endpoint is not ejected."""
    return any(failures.share(endpoint) for tier in endpoints.tiers for endpoint in tier.endpoints)


def _first(tier: Tier, failures: FailureMemory, chance: Chance, loads: Loads) -> Endpoint | None:
    """Draw by weight, and again if the endpoint has load; return the clearly less loaded of both."""
    drawn = _draw(tier, failures, chance)
    if drawn is None or len(tier.endpoints) == 1 or loads.get(drawn.key, 0) <= _CHANCE:
        return drawn
    other = _draw_again(tier, failures, chance.rng, _DRAWS)
    return drawn if other is None or not _clearly_less(other, drawn, failures, loads) else other


def _draw(tier: Tier, failures: FailureMemory, chance: Chance) -> Endpoint | None:
    """Draw one endpoint of a tier by weight; None if so many are ejected that every draw misses.

    A drawn endpoint is accepted with the probability of its share, which amounts to weight times share. Only
    the first draw uses the even sequence: if a second one did, the neighbours of an ejected endpoint would
    get its part.
    """
    drawn = _at(tier, chance.even())
    return (
        drawn if _taken(drawn, failures, chance.rng) else _draw_again(tier, failures, chance.rng, _DRAWS - 1)
    )


def _draw_again(tier: Tier, failures: FailureMemory, rng: Random, draws: int) -> Endpoint | None:
    for _ in range(draws):
        drawn = _at(tier, rng.random())
        if _taken(drawn, failures, rng):
            return drawn
    return None


def _at(tier: Tier, part: float) -> Endpoint:
    """Return the endpoint at a fraction of the summed weights, by bisection."""
    return tier.endpoints[bisect(tier.totals, part * tier.totals[-1], 0, len(tier.totals) - 1)]


def _taken(drawn: Endpoint, failures: FailureMemory, rng: Random) -> bool:
    share = failures.share(drawn)
    return share == 1.0 or rng.random() < share


def _clearly_less(other: Endpoint, drawn: Endpoint, failures: FailureMemory, loads: Loads) -> bool:
    """Compare connections per weight; return whether they differ by more than chance explains.

    Connections are whole numbers: with few of them, the lighter of two endpoints is either idle or far above
    its share. An exact comparison would prefer one endpoint by a third and more.
    """
    most = (loads.get(other.key, 0) + _CHANCE) / (other.odds * failures.share(other))
    least = (loads.get(drawn.key, 0) - _CHANCE) / (drawn.odds * failures.share(drawn))
    return most < least


def _by_weight(endpoints: Sequence[Endpoint], failures: FailureMemory, rng: Random) -> list[Endpoint]:
    shares = ((endpoint, failures.share(endpoint)) for endpoint in endpoints)
    return _shuffled([(endpoint, endpoint.odds * share) for endpoint, share in shares if share], rng)


def _shuffled(weighted: Sequence[tuple[Endpoint, float]], rng: Random) -> list[Endpoint]:
    """Order by u^(1/w), in logarithms: this draws by weight one by one (Efraimidis, Spirakis 2006)."""
    keyed = [(math.log(1.0 - rng.random()) / weight, i) for i, (_, weight) in enumerate(weighted)]
    return [weighted[i][0] for _, i in sorted(keyed, reverse=True)]
