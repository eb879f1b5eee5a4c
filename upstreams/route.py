"""The ways to an upstream for one connection: which instance, through which hop, in which order.

The active target's endpoints come first, then those of its stand-ins, and only then what is ejected anywhere.
Of a target that has stand-ins no more than a few endpoints are tried before these: when all of its instances
are gone at once, their number must not keep a connection from a target that lives.

Through a mesh gateway the instance is chosen by the gateway, which reads the name in the handshake
(docs/consul-api.md#sni). So the gateways are what is tried one by one, and one endpoint stands for all of its
service; who must answer in the end is the same as without.
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

BEFORE_STAND_INS = 4  # endpoints of one target tried before its stand-ins are

_Pick = Callable[[EndpointSet], Iterator[Endpoint]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way: who must answer, and whose address is dialled. `left`: targets not tried yet, and this."""

    target: int
    endpoint: Endpoint
    hop: Endpoint
    left: int = 1

    @property
    def through_gateway(self) -> bool:
        """Whether the dialled address is not the instance's own."""
        return self.hop is not self.endpoint

    def __str__(self) -> str:
        return f"{self.endpoint} through {self.hop}" if self.through_gateway else str(self.endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What the way depends on beside the endpoints. `gateways` of a datacenter; None: not known yet."""

    own_datacenter: str
    mode: MeshGatewayMode
    gateways: Callable[[str], EndpointSet | None]
    failures: FailureMemory
    chance: Chance
    loads: Loads

    def gateway_datacenter(self, endpoint: Endpoint) -> str | None:
        """Where the gateway to that endpoint stands; None if there is none on the way."""
        if endpoint.datacenter == self.own_datacenter:
            return None
        if self.mode is MeshGatewayMode.LOCAL:
            return self.own_datacenter
        return endpoint.datacenter if self.mode is MeshGatewayMode.REMOTE else None

    def reachable(self, endpoints: EndpointSet) -> bool:
        """Whether there is a way to one of them on which nothing is ejected."""
        if not any_in_favour(endpoints, self.failures):
            return False
        datacenter = self.gateway_datacenter(endpoints.tiers[0].endpoints[0])
        if datacenter is None:
            return True
        gateways = self.gateways(datacenter)
        return gateways is None or any_in_favour(gateways, self.failures)

    def favoured(self, endpoints: EndpointSet) -> Iterator[Endpoint]:
        """Those of an answer that are not ejected."""
        return in_favour(endpoints, self.failures, self.chance, self.loads)

    def ejected(self, endpoints: EndpointSet) -> Iterator[Endpoint]:
        """The others."""
        return last_resorts(endpoints, self.failures, self.chance)


def dialled(approach: Candidate, dialling: DialAddress, *more: str) -> str:
    """The address and why, in the form of a Dialling, with what more there is to say."""
    said = ["mesh gateway", *more] if approach.through_gateway else more
    return ", ".join((str(dialling)[:-1], *said)) + ")"


def approaches(targets: Sequence[tuple[int, EndpointSet]], terrain: RouteContext) -> Iterator[Candidate]:
    """Every way, in the order to try them; found out as it is asked for, so one may come up twice.

    `targets` are those with an answer, in the order of failover, each with its number.
    """
    for place, (number, endpoints) in enumerate(targets):
        left = len(targets) - place
        most = BEFORE_STAND_INS if left > 1 else None
        ways = _ways(terrain.favoured(endpoints), terrain, terrain.favoured)
        yield from (_approach(number, way, left) for way in islice(ways, most))
    for number, endpoints in targets if len(targets) > 1 else ():
        yield from (
            _approach(number, way) for way in _ways(terrain.favoured(endpoints), terrain, terrain.favoured)
        )
    for number, endpoints in targets:
        anybody = [*terrain.favoured(endpoints), *terrain.ejected(endpoints)]
        yield from (_approach(number, way) for way in _ways(anybody, terrain, terrain.ejected))


def first_choice(approach: Candidate, endpoints: EndpointSet, terrain: RouteContext) -> Endpoint | None:
    """The hop of a way as it is known now, if a new connection might be led that way before all others.

    `endpoints` are those of the active target. Through a gateway one endpoint stands for all of its service.
    """
    best = _best(endpoints, terrain.failures)
    if best is None:
        return None
    if approach.through_gateway:
        alike = (endpoint for endpoint in best.endpoints if endpoint.expected == approach.endpoint.expected)
        found = next(alike, None)
        datacenter = None if found is None else terrain.gateway_datacenter(found)
        gateways = None if datacenter is None else terrain.gateways(datacenter)
        nearest = None if gateways is None else _best(gateways, terrain.failures)
        return None if nearest is None else _now(approach.hop, nearest, terrain)
    hop = _now(approach.endpoint, best, terrain)
    return None if hop is None or terrain.gateway_datacenter(hop) is not None else hop


def _best(endpoints: EndpointSet, failures: FailureMemory) -> Tier | None:
    """The first tier in which anybody is left."""
    return next((tier for tier in endpoints.tiers if any(map(failures.share, tier.endpoints))), None)


def _now(known: Endpoint, tier: Tier, terrain: RouteContext) -> Endpoint | None:
    """The same instance in a newer answer, unless it is ejected or has become another service."""
    found = tier.find(known)
    if found is None or found.expected != known.expected:
        return None
    return found if terrain.failures.share(found) else None


def _ways(
    endpoints: Iterable[Endpoint], terrain: RouteContext, pick: _Pick
) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Endpoint and hop: itself, or each gateway once for all the endpoints of one identity."""
    stood_for: set[ExpectedIdentity] = set()
    for endpoint in endpoints:
        datacenter = terrain.gateway_datacenter(endpoint)
        if datacenter is None:
            yield endpoint, endpoint
        elif endpoint.expected not in stood_for:
            stood_for.add(endpoint.expected)
            gateways = terrain.gateways(datacenter)
            if gateways is not None:
                yield from ((endpoint, gateway) for gateway in pick(gateways))


def _approach(number: int, way: tuple[Endpoint, Endpoint], left: int = 1) -> Candidate:
    endpoint, hop = way
    return Candidate(target=number, endpoint=endpoint, hop=hop, left=left)
