"""Where an upstream's instances are: health and prepared-query answers (contract §5, §7) as values.

Each endpoint carries the identity it must prove: its own destination name in its own datacenter, which need
not be the upstream's name nor the upstream's datacenter (contract §4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

import msgspec

from certs.spiffe import DEFAULT, ServiceId

_LEAST_ODDS = 1e-6


class InvalidAnswer(ValueError):
    """An answer of the wrong shape; the text names the path of the field."""


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
        """Whether the peer is that service, compared exactly; its trust domain is checked elsewhere."""
        return (peer.datacenter, peer.service, peer.namespace, peer.partition) == (
            self.datacenter,
            self.service,
            self.namespace,
            self.partition,
        )

    def __str__(self) -> str:
        return f"/ns/{self.namespace}/dc/{self.datacenter}/svc/{self.service}"


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

    They are there so that a draw costs the same among five and among five thousand.
    """

    endpoints: tuple[Endpoint, ...]
    totals: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet:
    """All instances of one answer; `source` says for a person where the answer came from.

    `home` is the datacenter to be preferred, if any. `nearest_first`: the answer is sorted by distance, and
    the nearest is to have everything while it can. `ttl`: seconds between questions, as its author hints.
    """

    endpoints: tuple[Endpoint, ...]
    unusable: tuple[Unusable, ...] = ()
    source: str = ""
    home: str = ""
    nearest_first: bool = False
    ttl: float | None = None
    tiers: tuple[Tier, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        groups: dict[tuple[bool, bool, int], list[Endpoint]] = {}
        for place, endpoint in enumerate(self.endpoints):
            if endpoint.status is not Status.CRITICAL:
                groups.setdefault(self._rank(place, endpoint), []).append(endpoint)
        tiers = (groups[rank] for rank in sorted(groups))
        object.__setattr__(self, "tiers", tuple(map(_tier, tiers)))

    def _rank(self, place: int, endpoint: Endpoint) -> tuple[bool, bool, int]:
        return (
            endpoint.status is not Status.PASSING,
            bool(self.home) and endpoint.datacenter != self.home,
            place if self.nearest_first else 0,
        )


def _tier(endpoints: Sequence[Endpoint]) -> Tier:
    return Tier(tuple(endpoints), tuple(accumulate(endpoint.odds for endpoint in endpoints)))


class _HostPortAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    address: str = ""
    port: int = 0


class _WeightsAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    passing: int = 1
    warning: int = 1


class _ProxyAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    destination_service_name: str = ""


class _ConnectAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    native: bool = False


class _CheckAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""


class _NodeAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None


class _ServiceAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    id: str = msgspec.field(name="ID", default="")
    service: str = ""
    address: str = ""
    port: int = 0
    tagged_addresses: dict[str, _HostPortAnswer] | None = None
    weights: _WeightsAnswer | None = None
    proxy: _ProxyAnswer | None = None
    connect: _ConnectAnswer | None = None
    namespace: str = ""
    partition: str = ""


class _Entry(msgspec.Struct, frozen=True, rename="pascal"):
    node: _NodeAnswer
    service: _ServiceAnswer
    checks: list[_CheckAnswer] | None = None


class _QueryAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    service: str = ""
    nodes: list[_Entry] | None = None
    datacenter: str = ""
    failovers: int = 0


def parse_health(answer: Sequence[object] | None, source: str = "health") -> EndpointSet:
    """Read a decoded answer of `/v1/health/connect/:name`; raise InvalidAnswer."""
    try:
        entries = msgspec.convert(answer, list[_Entry] | None)
    except msgspec.ValidationError as error:
        raise InvalidAnswer(f"health answer: {error}") from error
    return _endpoint_set(entries or (), source)


def parse_query(answer: Mapping[str, object]) -> EndpointSet:
    """Read a decoded answer of `/v1/query/:name/execute`; raise InvalidAnswer."""
    try:
        parsed = msgspec.convert(answer, _QueryAnswer)
    except msgspec.ValidationError as error:
        raise InvalidAnswer(f"query answer: {error}") from error
    source = f"query for {parsed.service}, answered by {parsed.datacenter}, {parsed.failovers} failovers"
    return _endpoint_set(parsed.nodes or (), source)


def _endpoint_set(entries: Iterable[_Entry], source: str) -> EndpointSet:
    endpoints: list[Endpoint] = []
    unusable: list[Unusable] = []
    for entry in entries:
        name = _destination(entry.service)
        instance = f"{entry.service.id} on {entry.node.node}"
        if not name:
            unusable.append(Unusable(instance=instance, reason=UnusableReason.NO_DESTINATION))
        elif not entry.node.datacenter:
            unusable.append(Unusable(instance=instance, reason=UnusableReason.NO_DATACENTER))
        else:
            endpoints.append(_endpoint(entry, name))
    return EndpointSet(endpoints=tuple(endpoints), unusable=tuple(unusable), source=source)


def _destination(service: _ServiceAnswer) -> str:
    """Whom the instance speaks for: itself if native, else the service its proxy stands before."""
    if service.connect is not None and service.connect.native:
        return service.service
    return service.proxy.destination_service_name if service.proxy is not None else ""


def _endpoint(entry: _Entry, name: str) -> Endpoint:
    node, service = entry.node, entry.service
    status = _worst(entry.checks or ())
    weights = service.weights or _WeightsAnswer()
    tagged = (service.tagged_addresses or {}).items()
    return Endpoint(
        node=node.node,
        service_id=service.id,
        datacenter=node.datacenter,
        expected=ExpectedIdentity(
            datacenter=node.datacenter,
            service=name,
            namespace=service.namespace or DEFAULT,
            partition=service.partition or DEFAULT,
        ),
        service_address=service.address,
        port=service.port,
        node_address=node.address,
        tagged={tag: HostPort(pair.address, pair.port) for tag, pair in tagged},
        node_tagged=node.tagged_addresses or {},
        weight=max(0, weights.passing if status is Status.PASSING else weights.warning),
        status=status,
    )


def _worst(checks: Iterable[_CheckAnswer]) -> Status:
    """No checks is passing, as in Consul; a status we do not know is as bad as critical."""
    statuses = {check.status for check in checks}
    if statuses <= {Status.PASSING}:
        return Status.PASSING
    return Status.WARNING if statuses <= {Status.PASSING, Status.WARNING} else Status.CRITICAL
