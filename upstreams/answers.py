"""Reads health and prepared-query answers into endpoints.

See docs/consul-api.md#discovery and #prepared-queries.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence

import msgspec

from certs.spiffe import DEFAULT
from upstreams.endpoints import (
    Checks,
    Endpoint,
    EndpointSet,
    ExpectedIdentity,
    HostPort,
    Status,
    Unusable,
    UnusableReason,
)
from upstreams.spec import without_brackets

GATEWAY_KIND = "mesh-gateway"
MOST_WEIGHT = 65535  # Consul's own bound
TUNNEL_KEY = "connect_sidecar_tunnel"  # in a proxy's Config; whatever else stands there is not ours to read
PIECE = 50  # instances read in one step: about a millisecond

# Kinds of checks that the agent runs, and whose failures all have a text (docs/consul-api.md#discovery). An
# alias repeats those of another service of the agent.
_RUN_BY_AGENT = frozenset({"tcp", "http", "grpc", "h2ping", "alias"})
_NO_TEXT = ("", None)

_TTL = re.compile(r"(?P<number>\d+)(?P<unit>ms|s|m|h)", re.ASCII)  # one number and unit; "" is no hint
_TTL_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# What msgspec raises: beside the wrong shape also for a nesting a thousand deep, and for text that is not
# UTF-8.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class InvalidAnswer(ValueError):
    """An answer of the wrong shape; the text names the path of the field."""


class _HostPortAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    address: str = ""
    port: int = 0


class _WeightsAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    passing: int = 1
    warning: int = 1


class _ProxyAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    destination_service_name: str = ""
    config: object = None  # any JSON


class _ConnectAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    native: bool = False


class _CheckAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""
    type: str = ""
    output: object = ""  # any JSON: only whether there is a text is looked at


class _NodeAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None


class _ServiceAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    kind: str = ""
    id: str = msgspec.field(name="ID", default="")
    service: str = ""
    address: str = ""
    port: int = 0
    ports: object = None  # any JSON: of Consul 2
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


class _DnsAnswer(msgspec.Struct, frozen=True):
    ttl: str = msgspec.field(name="TTL", default="")


class _QueryAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    service: str = ""
    nodes: list[_Entry] | None = None
    datacenter: str = ""
    failovers: int = 0
    dns: _DnsAnswer | None = msgspec.field(name="DNS", default=None)


def parse_health(
    answer: Sequence[object] | None, source: str = "health", *, nearest_first: bool = False
) -> EndpointSet:
    """Read an answer of /v1/health/connect/:name, or of gateways, in one step. Raises InvalidAnswer."""
    steps = read_health(answer, source, nearest_first=nearest_first)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            endpoints: EndpointSet = end.value
            return endpoints


def read_health(
    answer: Sequence[object] | None, source: str = "health", *, nearest_first: bool = False
) -> Generator[None, None, EndpointSet]:
    """Read the same in steps, since five thousand instances take a tenth of a second. Raises InvalidAnswer.

    The instances are decoded values, or still JSON (msgspec.Raw), which is faster.
    """
    found = _Found()
    for place, item in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        try:
            found.add(_entry(item))
        except _UNDECODABLE as error:
            raise InvalidAnswer(f"health answer: {_within(error, place)}") from error
    return found.endpoint_set(source=source, nearest_first=nearest_first)


def parse_query(answer: Mapping[str, object], *, nearest_first: bool = False) -> EndpointSet:
    """Read a decoded answer of /v1/query/:name/execute. Raises InvalidAnswer."""
    try:
        parsed = msgspec.convert(answer, _QueryAnswer)
    except msgspec.ValidationError as error:
        raise InvalidAnswer(f"query answer: {error}") from error
    source = f"query for {parsed.service}, answered by {parsed.datacenter}, {parsed.failovers} failovers"
    # A failover's answer is shuffled even if `near` was asked for (docs/consul-api.md#prepared-queries).
    sorted_by_distance = nearest_first and not parsed.failovers
    found = _Found()
    for entry in parsed.nodes or ():
        found.add(entry)
    return found.endpoint_set(
        source=source,
        nearest_first=sorted_by_distance,
        ttl=_ttl(parsed.dns),
        service=parsed.service,
        datacenter=parsed.datacenter,
    )


def _ttl(dns: _DnsAnswer | None) -> float | None:
    """Return the query's DNS TTL in seconds; None if it cannot be read."""
    found = _TTL.fullmatch(dns.ttl) if dns is not None else None
    if found is None:
        return None
    return float(found["number"]) * _TTL_UNITS[found["unit"]] or None


_decoder = msgspec.json.Decoder(_Entry)


def _entry(item: object) -> _Entry:
    return _decoder.decode(item) if isinstance(item, msgspec.Raw) else msgspec.convert(item, _Entry)


def _within(error: Exception, place: int) -> str:
    """Return the text of an item's error with the item's place in the list."""
    text = str(error)
    return text.replace("`$", f"`$[{place}]") if "`$" in text else f"{text} - at `$[{place}]`"


class _Found:
    """The instances of an answer, as they are read."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []
        self._unusable: list[Unusable] = []

    def add(self, entry: _Entry) -> None:
        name = _destination(entry.service)
        instance = f"{entry.service.id} on {entry.node.node}"
        if not name:
            self._unusable.append(Unusable(instance=instance, reason=UnusableReason.NO_DESTINATION))
        elif not entry.node.datacenter:
            self._unusable.append(Unusable(instance=instance, reason=UnusableReason.NO_DATACENTER))
        elif entry.service.ports and not entry.service.port:
            self._unusable.append(Unusable(instance=instance, reason=UnusableReason.NAMED_PORTS))
        else:
            self._endpoints.append(_endpoint(entry, name))

    def endpoint_set(
        self,
        *,
        source: str,
        nearest_first: bool,
        ttl: float | None = None,
        service: str = "",
        datacenter: str = "",
    ) -> EndpointSet:
        """Return the set.

        Sorted unless its order means something, since Consul shuffles and that is no change.
        """
        if not nearest_first:
            self._endpoints.sort(
                key=lambda endpoint: (endpoint.datacenter, endpoint.node, endpoint.service_id)
            )
        return EndpointSet(
            endpoints=tuple(self._endpoints),
            unusable=tuple(self._unusable),
            source=source,
            nearest_first=nearest_first,
            ttl=ttl,
            service=service,
            datacenter=datacenter,
        )


def _destination(service: _ServiceAnswer) -> str:
    """Return the service of an instance: its own if native or a gateway, else its proxy's destination."""
    if service.kind == GATEWAY_KIND or (service.connect is not None and service.connect.native):
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
        service_address=without_brackets(service.address),
        port=_port(service.port),
        node_address=without_brackets(node.address),
        tagged={tag: HostPort(without_brackets(pair.address), _port(pair.port)) for tag, pair in tagged},
        node_tagged={tag: without_brackets(host) for tag, host in (node.tagged_addresses or {}).items()},
        weight=_weight(weights.passing if status is Status.PASSING else weights.warning),
        status=status,
        tunnels=_offers_tunnels(service.proxy),
        checks=_checks(entry.checks or ()),
    )


def _checks(checks: Iterable[_CheckAnswer]) -> Checks:
    """Return whether the agent has the results of the checks it runs (upstreams.vanished)."""
    run = [check for check in checks if check.type in _RUN_BY_AGENT]
    failing = [check for check in checks if check.status != Status.PASSING]
    if failing and all(_is_untold(check) for check in failing):
        return Checks.UNTOLD
    return Checks.TOLD if run and all(check.output not in _NO_TEXT for check in run) else Checks.OTHERS


def _is_untold(check: _CheckAnswer) -> bool:
    """Return whether a check has not run yet: a new one is critical, and has no text."""
    fresh = check.status == Status.CRITICAL and check.output in _NO_TEXT
    return fresh and check.type in _RUN_BY_AGENT


def _offers_tunnels(proxy: _ProxyAnswer | None) -> bool:
    """Return whether the instance's sidecar takes tunnels; any value but true is no offer."""
    config = proxy.config if proxy is not None else None
    return isinstance(config, dict) and config.get(TUNNEL_KEY) is True


def _port(answered: int) -> int:
    """Return a port; a number out of range becomes -1 or 65536, which is none."""
    return max(-1, min(65536, answered))


def _weight(answered: int) -> int:
    """Return a weight within Consul's bounds, so that sums of weights stay exact."""
    return max(0, min(MOST_WEIGHT, answered))


def _worst(checks: Iterable[_CheckAnswer]) -> Status:
    """Return the worst status.

    No checks count as passing, as in Consul, and an unknown status as critical.
    """
    statuses = {check.status for check in checks}
    if statuses <= {Status.PASSING}:
        return Status.PASSING
    return Status.WARNING if statuses <= {Status.PASSING, Status.WARNING} else Status.CRITICAL
