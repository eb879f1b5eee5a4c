"""Where an upstream's instances are.

Each endpoint carries the identity it must prove: its own destination name in its own datacenter, which need
not be the upstream's name nor the upstream's datacenter (docs/consul-api.md#identity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

from certs.spiffe import DEFAULT, ServiceId

_LEAST_ODDS = 1e-6


class Status(StrEnum):
    """The worst of an instance's checks."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class UnusableReason(StrEnum):
    """Why an instance of an answer is no endpoint."""

    NO_DESTINATION = "no_destination"
    NO_DATACENTER = "no_datacenter"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ExpectedIdentity:
    """A service identity whose trust domain is our own bundle's."""

    datacenter: str
    service: str
    namespace: str = DEFAULT
    partition: str = DEFAULT

    def matches(self, peer: ServiceId) -> bool:
        """Whether the peer is that service, in any case; its trust domain is checked elsewhere.

        A service registered as Web is found as web, and its proxy may stand for either spelling: Consul's own
        proxy compares without case too (docs/consul-api.md#identity).
        """
        return _folded(peer) == _folded(self)

    def __str__(self) -> str:
        return f"/ns/{self.namespace}/dc/{self.datacenter}/svc/{self.service}"


def _folded(one: ServiceId | ExpectedIdentity) -> tuple[str, ...]:
    return tuple(map(str.lower, (one.datacenter, one.service, one.namespace, one.partition)))


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address and a port that belong together; port 0 is none."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointKey:
    """What tells one instance from another through changes of address and health."""

    datacenter: str
    node: str
    service_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One instance, its addresses as answered and as tagged; which to dial is for `reach`."""

    node: str
    service_id: str
    datacenter: str
    expected: ExpectedIdentity
    service_address: str  # empty: the node's
    port: int
    node_address: str
    tagged: Mapping[str, HostPort]  # of the service: lan, wan, lan_ipv4, …
    node_tagged: Mapping[str, str]
    weight: int
    status: Status

    @property
    def odds(self) -> float:
        """The weight to draw by: 0 means "only if nothing else is left", not "never"."""
        return max(self.weight, _LEAST_ODDS)

    @property
    def key(self) -> EndpointKey:
        """The instance, for memory across answers."""
        return EndpointKey(datacenter=self.datacenter, node=self.node, service_id=self.service_id)

    def __str__(self) -> str:
        return f"{self.service_id} on {self.node} in {self.datacenter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An instance that was answered and cannot be used; `instance` says which."""

    instance: str
    reason: UnusableReason


@dataclass(frozen=True, slots=True)
class Tier:
    """Endpoints among which weight and load decide. `totals` are their odds, added up one by one.

    They are there so that a draw costs the same among five and among five thousand; for `find` it is a table,
    made when somebody first looks for one.
    """

    endpoints: tuple[Endpoint, ...]
    totals: tuple[float, ...]
    _table: dict[tuple[str, str, str], Endpoint] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def find(self, known: Endpoint) -> Endpoint | None:
        """The same instance as it is here; the first of those that are answered twice."""
        if not self._table:
            self._table.update((_name(endpoint), endpoint) for endpoint in reversed(self.endpoints))
        return self._table.get(_name(known))


class _Tiers:  # derived, so no field: neither compared nor told to another process
    __slots__ = ("tiers",)

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet(_Tiers):
    """All instances of one answer; `source` says for a person where the answer came from.

    All of one answer are of one datacenter: Consul mixes none. `nearest_first`: the answer is sorted by
    distance, and the nearest is to have everything while it can. `ttl`: seconds between questions, as its
    author hints. `service` and `datacenter` are a query's own word for what it has found and where.
    """

    endpoints: tuple[Endpoint, ...]
    unusable: tuple[Unusable, ...] = ()
    source: str = ""
    nearest_first: bool = False
    ttl: float | None = None
    service: str = ""
    datacenter: str = ""

    def __post_init__(self) -> None:
        groups: dict[tuple[bool, int], list[Endpoint]] = {}
        for place, endpoint in enumerate(self.endpoints):
            if endpoint.status is not Status.CRITICAL:
                groups.setdefault(self._rank(place, endpoint), []).append(endpoint)
        tiers = (groups[rank] for rank in sorted(groups))
        object.__setattr__(self, "tiers", tuple(map(_tier, tiers)))

    def _rank(self, place: int, endpoint: Endpoint) -> tuple[bool, int]:
        return endpoint.status is not Status.PASSING, place if self.nearest_first else 0


def _name(endpoint: Endpoint) -> tuple[str, str, str]:
    """The key, for a tenth of its price."""
    return endpoint.service_id, endpoint.node, endpoint.datacenter


def _tier(endpoints: Sequence[Endpoint]) -> Tier:
    return Tier(tuple(endpoints), tuple(accumulate(endpoint.odds for endpoint in endpoints)))
