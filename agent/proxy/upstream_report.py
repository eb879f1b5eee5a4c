"""The rows and metrics of the upstreams: targets, limits, endpoints, ejections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.base.incremental import Work
from agent.base.prometheus import Family, counter, gauge
from agent.net.admission import Displaced, Overflow
from agent.net.listeners import Opening
from agent.outbound.listeners import UpstreamListeners
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import WarmConnection
from agent.proxy import upstream_limits
from agent.snapshot import EndpointSource
from upstreams.endpoints import Endpoint
from upstreams.reach import Unreachable
from upstreams.route import dialled
from upstreams.spec import Upstream
from upstreams.travel import TunnelStanding

PIECE = 10  # upstreams of one step
MOST_ENDPOINTS = 1000  # of one target, in one answer

Row = dict[str, object]


def rows(
    upstreams: UpstreamListeners, now: datetime, tunnels: TunnelStanding | None = None
) -> Work[list[Row]]:
    """Tell the state of every upstream, in steps. `tunnels` are those that this process makes."""
    moment = _Moment(now, tunnels)
    found = []
    for bind, targets in list(upstreams.current.items()):
        found.append(_upstream(targets, upstreams.listeners.get(bind), moment))
        if len(found) % PIECE == 0:
            yield
    return found


def opening_row(opening: Opening | None) -> Row | None:
    """Return the state of one listener."""
    if opening is None:
        return None
    admission = opening.admission
    return {
        "addresses": opening.addresses,
        "listening": opening.listening,
        "problem": opening.problem,
        "live": admission.live,
        "limit": admission.limit,
        "most": admission.most,
        "admitted": admission.admitted,
        "handshakes": admission.unsettled,
        "handshakes_limit": admission.unsettled_limit,
        "handshakes_most": admission.most_unsettled,
        "overflow": admission.overflow,
        "overflow_by_reason": {reason.value: admission.refused[reason] for reason in Overflow},
        "waiting": admission.waiting,
        "left": admission.left,
        "pressure": admission.pressure,
        "displaced": {kind.value: admission.displaced[kind] for kind in Displaced},
    }


def families(upstreams: UpstreamListeners) -> Work[list[Family]]:
    """Make the metrics in steps. Labels are destination and bind: two upstreams may have one destination."""
    known = gauge("sidecar_upstream_endpoints", "Known instances, by datacenter and status.")
    usable = gauge("sidecar_upstream_instances", "Instances that may be dialled now; 0 if there is none.")
    ejected = gauge("sidecar_upstream_ejected", "Endpoints and gateways that are ejected now.")
    active = gauge("sidecar_upstream_active", "1 for the target that new connections go to, 0 for others.")
    live = gauge("sidecar_upstream_connections", "Connections of our app, waiting ones included.")
    limit = gauge("sidecar_upstream_limit", "The limits set for connections; absent: none.")
    overflow = counter("sidecar_upstream_overflow_total", "Connections refused by a limit, by reason.")
    changes = counter("sidecar_upstream_target_changes_total", "Changes of the active target.")
    for place, targets in enumerate(list(upstreams.current.values()), start=1):
        if place % PIECE == 0:
            yield
        labels = {"upstream": str(targets.upstream.destination), "bind": str(targets.upstream.bind)}
        chosen = targets.active()
        for target, source in zip(targets.upstream.targets, targets.sources(), strict=True):
            active.add(float(target == chosen), target=str(target), **labels)
            for (datacenter, status), count in _places(source).items():
                known.add(count, target=str(target), datacenter=datacenter, status=status, **labels)
        usable.add(sum(map(_usable, targets.sources())), **labels)
        ejected.add(len(targets.failures.ejected()), **labels)
        live.add(len(targets.connections), **labels)
        changes.add(targets.changes, **labels)
        for name, most in _limits(targets.upstream):
            limit.add(most, limit=name, **labels)
        for reason, count in sorted(targets.overflow.items()):
            overflow.add(count, reason=reason, **labels)
    yield
    return [known, usable, ejected, active, live, limit, overflow, changes, *_warm_families(upstreams)]


def _warm_families(upstreams: UpstreamListeners) -> Iterator[Family]:
    """Yield the metrics of upstreams that keep, or kept, warm connections."""
    wanted = gauge("sidecar_upstream_warm_wanted", "Warm connections to keep ready.")
    ready = gauge("sidecar_upstream_warm_ready", "Warm connections that are ready now.")
    used = counter("sidecar_upstream_warm_used_total", "Connections of our app served by a warm connection.")
    missed = counter("sidecar_upstream_warm_missed_total", "Connections of our app that found none ready.")
    discarded = counter("sidecar_upstream_warm_discarded_total", "Warm connections closed unused, by reason.")
    failed = counter("sidecar_upstream_warm_failed_total", "Attempts to make a warm one, by failure reason.")
    for targets in list(upstreams.current.values()):
        book, pool, upstream = targets.warm_book, targets.warm, targets.upstream
        if not (upstream.warm or book.made or book.failed):
            continue
        labels = {"upstream": str(upstream.destination), "bind": str(upstream.bind)}
        wanted.add(upstream.warm, **labels)
        ready.add(0 if pool is None else len(pool.ready), **labels)
        used.add(book.used, **labels)
        missed.add(book.missed, **labels)
        for family, counts in ((discarded, book.discarded), (failed, book.failed)):
            for reason, count in sorted(counts.items()):
                family.add(count, reason=reason, **labels)
    yield from (wanted, ready, used, missed, discarded, failed)


def _limits(upstream: Upstream) -> list[tuple[str, int]]:
    """Return the limits that are set, by the name of the setting."""
    limits = {"max_connections": upstream.max_connections, "max_pending_requests": upstream.max_pending}
    return [(name, most) for name, most in limits.items() if most is not None]


def _usable(source: EndpointSource) -> int:
    newest = source.endpoints.value
    return 0 if newest is None else sum(len(tier.endpoints) for tier in newest.tiers)


def _places(source: EndpointSource) -> Counter[tuple[str, str]]:
    newest = source.endpoints.value
    return Counter((e.datacenter, e.status.value) for e in (newest.endpoints if newest else ()))


@dataclass(frozen=True, slots=True)
class _Moment:
    """What all rows of one answer share."""

    now: datetime
    tunnels: TunnelStanding | None


_Tell = Callable[[UpstreamState, Endpoint, _Moment], Row]


def _upstream(targets: UpstreamState, opening: Opening | None, moment: _Moment) -> Row:
    upstream = targets.upstream
    active = targets.active()
    sources = zip(upstream.targets, targets.sources(), strict=True)
    return {
        "upstream": str(upstream.destination),
        "bind": str(upstream.bind),
        "listener": opening_row(opening),
        "active": str(active),
        "active_since": _time(moment.now - timedelta(seconds=targets.active_seconds)),
        "targets": [
            {"target": str(target), **_source(targets, source, moment)} for target, source in sources
        ],
        "gateways": [_source(targets, gateways, moment, _endpoint) for gateways in targets.gateways()],
        "mesh_gateway": upstream.mesh_gateway.value or "none",
        "wan": targets.wan.value,
        "connections": len(targets.connections),
        "waiting": targets.pending,
        "warm": _warm(targets),
        "limits": upstream_limits.row(upstream),
        "overflow": dict(targets.overflow),
    }


def _warm(targets: UpstreamState) -> Row:
    """Return the warm connections; they count among the upstream's connections once they are used."""
    book, pool = targets.warm_book, targets.warm
    return {
        "wanted": targets.upstream.warm,
        "ready": [] if pool is None else [_ready(warm) for warm in pool.ready],
        "made": book.made,
        "used": book.used,
        "missed": book.missed,
        "discarded": dict(book.discarded),
        "failed": dict(book.failed),
    }


def _ready(warm: WarmConnection) -> Row:
    return {
        "instance": str(warm.candidate),
        "peer": str(warm.peer.id),
        "peer_serial": warm.peer.serial,
        "address": dialled(warm.candidate, warm.dialling),
        "generation": warm.generation,
        "seconds": round(warm.age, 3),
        "heard_bytes": len(warm.early),
    }


def _source(
    targets: UpstreamState, source: EndpointSource, moment: _Moment, tell: _Tell | None = None
) -> Row:
    newest, status = source.endpoints.value, source.status
    endpoints = () if newest is None else newest.endpoints
    return {
        "watch": status.name,
        "answered_seconds_ago": status.age,
        "failing": None if status.failing is None else str(status.failing),
        "source": None if newest is None else newest.source,
        "endpoints": [
            (tell or _instance)(targets, endpoint, moment) for endpoint in endpoints[:MOST_ENDPOINTS]
        ],
        "endpoints_not_shown": max(0, len(endpoints) - MOST_ENDPOINTS),
        "unusable": [] if newest is None else [f"{u.instance}: {u.reason.value}" for u in newest.unusable],
    }


def _instance(targets: UpstreamState, endpoint: Endpoint, moment: _Moment) -> Row:
    """Return an instance as an endpoint, and how a connection to it would travel."""
    row = _endpoint(targets, endpoint, moment)
    try:
        how = targets.would_travel(endpoint, targets.dialling(endpoint), moment.tunnels)
    except Unreachable:
        return row | {"travel": None, "travel_says": ""}
    return row | {"travel": how.reason.value, "travel_says": str(how)}


def _endpoint(targets: UpstreamState, endpoint: Endpoint, moment: _Moment) -> Row:
    """Return an endpoint with the address at which it would be dialled now, and why that one."""
    out = targets.failures.ejected().get(endpoint.key)
    row: Row = {
        "instance": str(endpoint),
        "status": endpoint.status.value,
        "weight": endpoint.weight,
        "expects": str(endpoint.expected),
        "live": targets.loads.get(endpoint.key, 0),
        "ejected_until": None if out is None else _time(moment.now + timedelta(seconds=out)),
    }
    try:
        dialling = targets.dialling(endpoint)
    except Unreachable as error:
        return row | {"address": None, "why": error.reason.value}
    host = f"[{dialling.host}]" if ":" in dialling.host else dialling.host
    return row | {"address": f"{host}:{dialling.port}", "why": dialling.reason.value}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
