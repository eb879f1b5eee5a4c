"""Reads the settings of one upstream: its `Config` in a registration, or its `[[upstreams]]` table in TOML.

The keys are Consul's own, as Envoy's integration reads them (docs/consul-api.md#config-keys), in the spelling
of a service definition or of a central config entry, and ours: `deadline_ms`, `wan`, `mesh_gateway`, `near`,
`filter`, `failover`, `failover_hold`, `warm`, `warm_idle`, `tunnel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from msgspec import structs

from agent.config.opaque_config import LONGEST, ConfigReader, unknown_keys
from upstreams.ejection import EjectionPolicy
from upstreams.spec import (
    MOST_WARM,
    Destination,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    TunnelMode,
    Upstream,
    WanMode,
)

POLL_SECONDS = 30.0  # the interval of Envoy's integration: docs/consul-api.md#prepared-queries
LEAST_POLL_SECONDS, MOST_POLL_SECONDS = 10.0, 60.0  # bounds of the interval that a query's TTL can set

KEYS = frozenset(
    {
        "connect_timeout_ms",
        "deadline_ms",
        "failover",
        "failover_hold",
        "filter",
        "limits",
        "mesh_gateway",
        "near",
        "passive_health_check",
        "poll_interval",
        "protocol",
        "tunnel",
        "wan",
        "warm",
        "warm_idle",
    }
)
_OF_LIMITS = frozenset({"max_connections", "max_pending_requests", "MaxConnections", "MaxPendingRequests"})
_OF_HEALTH = frozenset(
    {"interval", "max_failures", "base_ejection_time", "Interval", "MaxFailures", "BaseEjectionTime"}
)
# Keys of the inner maps; `mesh_gateway` is one where a central config entry gives it.
WITHIN: Mapping[str, frozenset[str]] = {
    "limits": _OF_LIMITS,
    "passive_health_check": _OF_HEALTH,
    "mesh_gateway": frozenset({"mode", "Mode"}),
}
TARGET_KEYS = frozenset({"datacenter", "filter", "query", "service"})  # of a table of `failover`
_NANOSECONDS = 1e9  # in a second; how Go writes a duration as a number


def configured(upstream: Upstream, config: ConfigReader) -> Upstream:
    """Return the upstream with its settings; a value that cannot be used is a problem and changes nothing."""
    limits = config.within("limits")
    destination = _chosen(upstream.destination, config)
    return replace(
        upstream,
        destination=destination,
        connect_timeout=config.seconds("connect_timeout_ms", upstream.connect_timeout),
        deadline=config.seconds("deadline_ms", upstream.deadline),
        max_connections=limits.count(limits.spelt("max_connections", "MaxConnections")),
        max_pending=limits.count(limits.spelt("max_pending_requests", "MaxPendingRequests")),
        poll_interval=config.duration("poll_interval"),
        protocol=config.text("protocol", upstream.protocol),
        mesh_gateway=_gateways(config) or upstream.mesh_gateway,
        wan=config.choice("wan", WanMode),
        ejection=_ejection(config.within("passive_health_check"), upstream.ejection),
        failover=tuple(_target(table, destination) for table in config.tables("failover")),
        hold=config.duration("failover_hold") or upstream.hold,
        warm=config.number("warm", upstream.warm, MOST_WARM),
        warm_idle=config.duration("warm_idle") or upstream.warm_idle,
        tunnel=config.choice("tunnel", TunnelMode),
    )


def not_honoured(config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the keys of an upstream's `Config` that have no effect here, those of inner maps after a dot."""
    inner = [
        f"{key}.{name}"
        for key, known in WITHIN.items()
        if isinstance(map_ := config.get(key), Mapping)
        for name in unknown_keys(map_, known)
    ]
    targets = config.get("failover")
    for number, target in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(target, Mapping):
            inner += [f"failover[{number}].{name}" for name in unknown_keys(target, TARGET_KEYS)]
    return tuple(sorted([*unknown_keys(config, KEYS), *inner]))


def _gateways(config: ConfigReader) -> MeshGatewayMode | None:
    if not isinstance(config.config.get("mesh_gateway"), Mapping):
        return config.choice("mesh_gateway", MeshGatewayMode)
    within = config.within("mesh_gateway")
    return within.choice(within.spelt("mode", "Mode"), MeshGatewayMode)


def _chosen(destination: Destination, config: ConfigReader) -> Destination:
    near = config.text("near", destination.near)
    if isinstance(destination, QueryDestination):
        if config.text("filter", ""):
            config.problem("filter", "a prepared query has its filter in its definition; ignored")
        return structs.replace(destination, near=near)
    return structs.replace(destination, near=near, filter=config.text("filter", destination.filter))


def _ejection(config: ConfigReader, default: EjectionPolicy) -> EjectionPolicy:
    failures = config.count(config.spelt("max_failures", "MaxFailures"))
    base = config.spelt("base_ejection_time", "BaseEjectionTime")
    return replace(
        default,
        interval=_go_duration(config, config.spelt("interval", "Interval")) or default.interval,
        max_failures=failures or default.max_failures,
        ejection_time=_go_duration(config, base) or default.ejection_time,
    )


def _go_duration(config: ConfigReader, key: str) -> float | None:
    """Return seconds, from a Go duration or from nanoseconds, the form in a central config entry."""
    value = config.config.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST * _NANOSECONDS:
        return value / _NANOSECONDS
    return config.duration(key)


def _target(config: ConfigReader, preferred: Destination) -> Destination:
    """Return one failover target; what the table does not name is taken from the preferred target."""
    datacenter = config.text("datacenter", "") or None
    query, service = config.text("query", ""), config.text("service", "")
    if query or (isinstance(preferred, QueryDestination) and not service):
        return QueryDestination(query or preferred.name, datacenter, near=preferred.near)
    kept = preferred.filter if isinstance(preferred, ServiceDestination) and not service else ""
    return ServiceDestination(
        service or preferred.name, datacenter, filter=config.text("filter", kept), near=preferred.near
    )
