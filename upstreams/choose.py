"""In which order to try the endpoints for one connection.

Tier by tier: passing before warning, near before far. Within a tier the first is drawn by weight, and the
draws of one upstream are spread evenly: a few hundred connections have the shares that chance alone needs
many thousands for. Another draw takes its place if that one is clearly less loaded, which keeps an endpoint
that is slow, and so holds its connections longer, from getting as many as the others. Ejected endpoints come
last of all but are never dropped: when everything is ejected, everything is tried again. Critical ones are
not candidates.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from random import Random

from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, Tier

Loads = Mapping[EndpointKey, int]  # connections each endpoint has now, those still being opened included

_DRAWS = 8
_STEP = (math.sqrt(5) - 1) / 2  # the golden ratio's: no fraction comes near it, so no rhythm of callers fits
_CHANCE = 2  # connections by which a load may be off without meaning anything


class Chance:
    """What is left to chance, for one upstream: its draws are from one sequence.

    The numbers of `even` are those of an additive recurrence: multiples of the golden ratio, without their
    whole part, from a random start. Among n of them every interval holds its part of n but for a few.
    """

    __slots__ = ("_at", "rng")

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._at = rng.random()

    def even(self) -> float:
        """The next of the sequence, from 0 to below 1."""
        self._at = (self._at + _STEP) % 1.0
        return self._at


def candidates(
    endpoints: EndpointSet, failures: FailureMemory, chance: Chance, loads: Loads | None = None
) -> Iterator[Endpoint]:
    """The endpoints in the order to try them, each once."""
    return chain(
        in_favour(endpoints, failures, chance, loads or {}), last_resorts(endpoints, failures, chance)
    )


def in_favour(
    endpoints: EndpointSet, failures: FailureMemory, chance: Chance, loads: Loads
) -> Iterator[Endpoint]:
    """Those that are not ejected.

    The first is drawn without a look at the others, since the usual connection needs no second; the order of
    the rest is found out when it is asked for.
    """
    if not endpoints.tiers:
        return
    first = _first(endpoints.tiers[0], failures, chance, loads)
    if first is not None:
        yield first
    for tier in endpoints.tiers:
        yield from _by_weight([e for e in tier.endpoints if e is not first], failures, chance.rng)


def last_resorts(endpoints: EndpointSet, failures: FailureMemory, chance: Chance) -> Iterator[Endpoint]:
    """Those that are ejected."""
    for tier in endpoints.tiers:
        yield from _shuffled([(e, e.odds) for e in tier.endpoints if not failures.share(e)], chance.rng)


def any_in_favour(endpoints: EndpointSet, failures: FailureMemory) -> bool:
    """Whether there is an endpoint that is not ejected."""
    return any(failures.share(endpoint) for tier in endpoints.tiers for endpoint in tier.endpoints)


def _first(tier: Tier, failures: FailureMemory, chance: Chance, loads: Loads) -> Endpoint | None:
    """By weight, unless another draw is clearly less loaded: without load the even draw alone decides."""
    drawn = _draw(tier, failures, chance)
    if drawn is None or loads.get(drawn.key, 0) <= _CHANCE:
        return drawn
    other = _draw_again(tier, failures, chance.rng, _DRAWS)
    return drawn if other is None or not _clearly_less(other, drawn, failures, loads) else other


def _draw(tier: Tier, failures: FailureMemory, chance: Chance) -> Endpoint | None:
    """One of a tier by weight; None if so many are ejected that the draws miss.

    To take a drawn endpoint with the probability of its share is to draw by weight times share. Only the
    first draw is even: the next of the sequence depends on it, and would give its neighbours what it misses.
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
    """The endpoint at that part of the way through the weights; found by bisection."""
    return tier.endpoints[bisect(tier.totals, part * tier.totals[-1], 0, len(tier.totals) - 1)]


def _taken(drawn: Endpoint, failures: FailureMemory, rng: Random) -> bool:
    share = failures.share(drawn)
    return share == 1.0 or rng.random() < share


def _clearly_less(other: Endpoint, drawn: Endpoint, failures: FailureMemory, loads: Loads) -> bool:
    """By connections per weight, and by more than chance makes.

    Connections are whole: with a few of them the lighter of two endpoints is either idle or far above its
    share. To compare what there is would turn that into a preference, for one endpoint by a third and more.
    """
    most = (loads.get(other.key, 0) + _CHANCE) / (other.odds * failures.share(other))
    least = (loads.get(drawn.key, 0) - _CHANCE) / (drawn.odds * failures.share(drawn))
    return most < least


def _by_weight(endpoints: Sequence[Endpoint], failures: FailureMemory, rng: Random) -> list[Endpoint]:
    shares = ((endpoint, failures.share(endpoint)) for endpoint in endpoints)
    return _shuffled([(endpoint, endpoint.odds * share) for endpoint, share in shares if share], rng)


def _shuffled(weighted: Sequence[tuple[Endpoint, float]], rng: Random) -> list[Endpoint]:
    """Efraimidis and Spirakis: to order by u^(1/w), here in logarithms, is to draw by weight one by one."""
    keyed = [(math.log(1.0 - rng.random()) / weight, i) for i, (_, weight) in enumerate(weighted)]
    return [weighted[i][0] for _, i in sorted(keyed, reverse=True)]
