"""In which order to try the endpoints for one connection.

Tier by tier: passing before warning, near before far. Within a tier the first is the less loaded of two
draws by weight, which keeps an endpoint that is slow, and so holds its connections longer, from getting as
many as the others. Ejected endpoints come last of all but are never dropped: when everything is ejected,
everything is tried again. Critical ones are not candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from random import Random

from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, Tier

Loads = Mapping[EndpointKey, int]  # connections each endpoint has now, those still being opened included

_DRAWS = 8


def candidates(
    endpoints: EndpointSet, failures: FailureMemory, rng: Random, loads: Loads | None = None
) -> Iterator[Endpoint]:
    """The endpoints in the order to try them, each once."""
    return chain(in_favour(endpoints, failures, rng, loads or {}), last_resorts(endpoints, failures, rng))


def in_favour(
    endpoints: EndpointSet, failures: FailureMemory, rng: Random, loads: Loads
) -> Iterator[Endpoint]:
    """Those that are not ejected.

    The first is drawn without a look at the others, since the usual connection needs no second; the order of
    the rest is found out when it is asked for.
    """
    if not endpoints.tiers:
        return
    first = _less_loaded(endpoints.tiers[0], failures, rng, loads)
    if first is not None:
        yield first
    for tier in endpoints.tiers:
        yield from _by_weight([e for e in tier.endpoints if e is not first], failures, rng)


def last_resorts(endpoints: EndpointSet, failures: FailureMemory, rng: Random) -> Iterator[Endpoint]:
    """Those that are ejected."""
    for tier in endpoints.tiers:
        yield from _shuffled([(e, e.odds) for e in tier.endpoints if not failures.share(e)], rng)


def any_in_favour(endpoints: EndpointSet, failures: FailureMemory) -> bool:
    """Whether there is an endpoint that is not ejected."""
    return any(failures.share(endpoint) for tier in endpoints.tiers for endpoint in tier.endpoints)


def _less_loaded(tier: Tier, failures: FailureMemory, rng: Random, loads: Loads) -> Endpoint | None:
    """By connections per weight. Of two equals the first: without load the draw alone decides."""
    first = _draw(tier, failures, rng)
    second = _draw(tier, failures, rng) if first is not None and loads else None
    if first is None or second is None or second is first:
        return first
    return second if _load(second, failures, loads) < _load(first, failures, loads) else first


def _draw(tier: Tier, failures: FailureMemory, rng: Random) -> Endpoint | None:
    """One of a tier by weight; None if so many are ejected that the draws miss.

    To take a drawn endpoint with the probability of its share is to draw by weight times share.
    """
    for _ in range(_DRAWS):
        (drawn,) = rng.choices(tier.endpoints, cum_weights=tier.totals)
        share = failures.share(drawn)
        if share == 1.0 or rng.random() < share:
            return drawn
    return None


def _load(endpoint: Endpoint, failures: FailureMemory, loads: Loads) -> float:
    return loads.get(endpoint.key, 0) / (endpoint.odds * failures.share(endpoint))


def _by_weight(endpoints: Sequence[Endpoint], failures: FailureMemory, rng: Random) -> list[Endpoint]:
    shares = ((endpoint, failures.share(endpoint)) for endpoint in endpoints)
    return _shuffled([(endpoint, endpoint.odds * share) for endpoint, share in shares if share], rng)


def _shuffled(weighted: Sequence[tuple[Endpoint, float]], rng: Random) -> list[Endpoint]:
    """Efraimidis and Spirakis: to order by u^(1/w), here in logarithms, is to draw by weight one by one."""
    keyed = [(math.log(1.0 - rng.random()) / weight, i) for i, (_, weight) in enumerate(weighted)]
    return [weighted[i][0] for _, i in sorted(keyed, reverse=True)]
