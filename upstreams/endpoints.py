"""The instances of an upstream.

Each endpoint carries the identity it must prove: its own destination name in its own datacenter, which may
differ from the upstream's name and datacenter (docs/consul-api.md#identity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

import msgspec

from certs.spiffe import DEFAULT, ServiceId

_LEAST_ODDS = 1e-6


class Status(StrEnum):
    """The worst of an instance's checks; or why it is used though Consul offers none (upstreams.vanished)."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    VANISHED = "vanished"  # Consul's answer has lost it, with its whole node
    UNCHECKED = "unchecked"  # its agent has lost the results of its checks

    @property
    def kept(self) -> bool:
        """Whether Consul does not offer the instance."""
        return self in (Status.VANISHED, Status.UNCHECKED)


class Checks(StrEnum):
    """Whether the agent that runs an instance's checks has their results."""

    OTHERS = "others"  # a check that another program reports, or a node's, decides; or there is none
    TOLD = "told"  # every check that the agent runs has a result
    UNTOLD = "untold"  # the agent runs all that do not pass, and they have no result


class UnusableReason(StrEnum):
    """Why an instance of an answer is not an endpoint."""

    NO_DESTINATION = "no_destination"
    NO_DATACENTER = "no_datacenter"
    NAMED_PORTS = "named_ports"  # of Consul 2, and none that is the service's own


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ExpectedIdentity:
    """A service identity; its trust domain is that of our own bundle."""

    datacenter: str
    service: str
    namespace: str = DEFAULT
    partition: str = DEFAULT

    def matches(self, peer: ServiceId) -> bool:
        """Return whether the peer is that service, ignoring case; the trust domain is checked elsewhere.

        Consul finds a service registered as Web under web, and its proxy may use either spelling. Consul's
        own proxy ignores case too (docs/consul-api.md#identity).
        """
        return _folded(peer) == _folded(self)

    def __str__(self) -> str:
        return f"/ns/{self.namespace}/dc/{self.datacenter}/svc/{self.service}"


def _folded(one: ServiceId | ExpectedIdentity) -> tuple[str, ...]:
    return tuple(map(str.lower, (one.datacenter, one.service, one.namespace, one.partition)))


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address and a port that belong together; port 0 means none."""

    host: str
    port: int


class EndpointKey(msgspec.Struct, frozen=True, kw_only=True):
    """Identifies an instance through changes of its address and health.

    A struct, since its hash is taken ten times a connection.
    """

    datacenter: str
    node: str
    service_id: str


class _Keyed:  # the key is derived, so it is no field: neither compared nor sent to another process
    __slots__ = ("key",)

    key: EndpointKey  # of the instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(_Keyed):
    """One instance with its addresses as answered and as tagged; `reach` chooses which to dial."""

    node: str
    service_id: str
    datacenter: str
    expected: ExpectedIdentity
    service_address: str  # empty: the node's address applies
    port: int
    node_address: str
    tagged: Mapping[str, HostPort]  # the service's tags: lan, wan, lan_ipv4, …
    node_tagged: Mapping[str, str]
    weight: int
    status: Status
    tunnels: bool = False  # its registration offers tunnels
    checks: Checks = Checks.OTHERS

    def __post_init__(self) -> None:
        """Make the key, which each connection asks for several times."""
        key = EndpointKey(datacenter=self.datacenter, node=self.node, service_id=self.service_id)
        object.__setattr__(self, "key", key)

    @property
    def odds(self) -> float:
        """The weight to draw by: 0 means "only if no other is left", not "never"."""
        return max(self.weight, _LEAST_ODDS)

    def __str__(self) -> str:
        return f"{self.service_id} on {self.node} in {self.datacenter}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An instance in an answer that cannot be used; `instance` names it."""

    instance: str
    reason: UnusableReason


@dataclass(frozen=True, slots=True)
class Tier:
    """Endpoints among which weight and load decide. `totals` are their running sums of weights.

    With them a draw costs the same among five and among five thousand. `find` uses a table, made at its first
    call.
    """

    endpoints: tuple[Endpoint, ...]
    totals: tuple[float, ...]
    _table: dict[tuple[str, str, str], Endpoint] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def find(self, known: Endpoint) -> Endpoint | None:
        """Return the same instance in this tier; the first of duplicates."""
        if not self._table:
            self._table.update((_name(endpoint), endpoint) for endpoint in reversed(self.endpoints))
        return self._table.get(_name(known))


class _Tiers:  # `tiers` is derived, so it is no field: neither compared nor sent to another process
    __slots__ = ("tiers",)

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet(_Tiers):
    """All instances of one answer; `source` names the answer's origin for a person.

    All instances of an answer are of one datacenter, as in Consul. `nearest_first`: the answer is sorted by
    distance, and the nearest endpoint gets every connection while it is healthy. `ttl`: the seconds between
    questions that the query's author hints at. `service` and `datacenter` are what a query says it has found.
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

    @property
    def offered(self) -> bool:
        """Whether Consul offers an instance; no instance is kept beside one that it offers."""
        return bool(self.tiers) and not self.tiers[0].endpoints[0].status.kept


def _name(endpoint: Endpoint) -> tuple[str, str, str]:
    """Return what identifies the instance, at a tenth of the cost of its key."""
    return endpoint.service_id, endpoint.node, endpoint.datacenter


def _tier(endpoints: Sequence[Endpoint]) -> Tier:
    return Tier(tuple(endpoints), tuple(accumulate(endpoint.odds for endpoint in endpoints)))
