"""The candidates of one connection to an upstream: which instance, through which hop, in which order.

The active target's endpoints come first, then those of its failover targets, then all ejected ones. Of a
target that has failover targets only a few endpoints are tried before these: if all of its instances are gone
at once, their number must not keep the connection from a live target.

Through a mesh gateway the gateway chooses the instance, by the SNI of the handshake (docs/consul-api.md#sni).
So the gateways are tried one by one, and one endpoint stands for all of its service; the identity that must
answer is the same as without a gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from upstreams.choose import Chance, Loads, any_in_favour, in_favour, last_resorts
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointSet, ExpectedIdentity, Tier
from upstreams.reach import DialAddress
from upstreams.spec import MeshGatewayMode

BEFORE_FAILOVER = 4  # endpoints of one target tried before its failover targets

_Pick = Callable[[EndpointSet], Iterator[Endpoint]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The endpoint that must answer, and the hop that is dialled.

    `left`: targets still to try, this included.
    """

    target: int
    endpoint: Endpoint
    hop: Endpoint
    left: int = 1

    @property
    def through_gateway(self) -> bool:
        """Whether the dialled address is a mesh gateway's."""
        return self.hop is not self.endpoint

    def __str__(self) -> str:
        return f"{self.endpoint} through {self.hop}" if self.through_gateway else str(self.endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What candidates depend on beside the endpoints. `gateways` returns None while they are not known."""

    own_datacenter: str
    mode: MeshGatewayMode
    gateways: Callable[[str], EndpointSet | None]
    failures: FailureMemory
    chance: Chance
    loads: Loads

    def gateway_datacenter(self, endpoint: Endpoint) -> str | None:
        """Return the datacenter of the gateway to the endpoint; None if it is dialled without one."""
        if endpoint.datacenter == self.own_datacenter:
            return None
        if self.mode is MeshGatewayMode.LOCAL:
            return self.own_datacenter
        return endpoint.datacenter if self.mode is MeshGatewayMode.REMOTE else None

    def reachable(self, endpoints: EndpointSet) -> bool:
        """Return whether an endpoint can be reached without passing an ejected one."""
        if not any_in_favour(endpoints, self.failures):
            return False
        datacenter = self.gateway_datacenter(endpoints.tiers[0].endpoints[0])
        if datacenter is None:
            return True
        gateways = self.gateways(datacenter)
        return gateways is None or any_in_favour(gateways, self.failures)

    def favoured(self, endpoints: EndpointSet) -> Iterator[Endpoint]:
        """Yield the endpoints that are not ejected."""
        return in_favour(endpoints, self.failures, self.chance, self.loads)

    def ejected(self, endpoints: EndpointSet) -> Iterator[Endpoint]:
        """Yield the ejected endpoints."""
        return last_resorts(endpoints, self.failures, self.chance)


def dialled(candidate: Candidate, dialling: DialAddress, *more: str) -> str:
    """Return the text of the dialled address with its reason and `more` notes."""
    kept = [one.status.value for one in (candidate.endpoint, candidate.hop) if one.status.kept][:1]
    notes = [*(["mesh gateway"] if candidate.through_gateway else []), *kept, *more]
    return ", ".join((str(dialling)[:-1], *notes)) + ")"


def candidates(targets: Sequence[tuple[int, EndpointSet]], context: RouteContext) -> Iterator[Candidate]:
    """Yield every candidate in the order to try them; lazily, so the same one may come twice.

    `targets` are those with an answer, each with its number, in the order of failover.
    """
    for place, (number, endpoints) in enumerate(targets):
        left = len(targets) - place
        most = BEFORE_FAILOVER if left > 1 else None
        ways = _ways(context.favoured(endpoints), context, context.favoured)
        yield from (_candidate(number, way, left) for way in islice(ways, most))
    for number, endpoints in targets if len(targets) > 1 else ():
        yield from (
            _candidate(number, way) for way in _ways(context.favoured(endpoints), context, context.favoured)
        )
    for number, endpoints in targets:
        every = [*context.favoured(endpoints), *context.ejected(endpoints)]
        yield from (_candidate(number, way) for way in _ways(every, context, context.ejected))


def first_choice(candidate: Candidate, endpoints: EndpointSet, context: RouteContext) -> Endpoint | None:
    """Return the present hop of a candidate, if a new connection might try it first; else None.

    `endpoints` are those of the active target. Through a gateway one endpoint stands for all of its service.
    """
    best = _best(endpoints, context.failures)
    if best is None:
        return None
    if candidate.through_gateway:
        alike = (endpoint for endpoint in best.endpoints if endpoint.expected == candidate.endpoint.expected)
        found = next(alike, None)
        datacenter = None if found is None else context.gateway_datacenter(found)
        gateways = None if datacenter is None else context.gateways(datacenter)
        nearest = None if gateways is None else _best(gateways, context.failures)
        return None if nearest is None else _now(candidate.hop, nearest, context)
    hop = _now(candidate.endpoint, best, context)
    return None if hop is None or context.gateway_datacenter(hop) is not None else hop


def _best(endpoints: EndpointSet, failures: FailureMemory) -> Tier | None:
    """Return the first tier with an endpoint that is not ejected."""
    return next((tier for tier in endpoints.tiers if any(map(failures.share, tier.endpoints))), None)


def _now(known: Endpoint, tier: Tier, context: RouteContext) -> Endpoint | None:
    """Return the instance in a newer answer; None if it is ejected or stands for another service now."""
    found = tier.find(known)
    if found is None or found.expected != known.expected:
        return None
    return found if context.failures.share(found) else None


def _ways(
    endpoints: Iterable[Endpoint], context: RouteContext, pick: _Pick
) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Yield endpoint and hop: the endpoint itself, or each gateway once for all endpoints of one identity."""
    stood_for: set[ExpectedIdentity] = set()
    for endpoint in endpoints:
        datacenter = context.gateway_datacenter(endpoint)
        if datacenter is None:
            yield endpoint, endpoint
        elif endpoint.expected not in stood_for:
            stood_for.add(endpoint.expected)
            gateways = context.gateways(datacenter)
            if gateways is not None:
                yield from ((endpoint, gateway) for gateway in pick(gateways))


def _candidate(number: int, way: tuple[Endpoint, Endpoint], left: int = 1) -> Candidate:
    endpoint, hop = way
    return Candidate(target=number, endpoint=endpoint, hop=hop, left=left)
