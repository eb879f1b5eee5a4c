"""The report of one process's data plane: the rows of `/status`, and the metrics of connections.

Reading it must not burden an agent in trouble: the rows of connections are limited, and the report says how
many are left out.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import trio

from agent.base.containment import Where
from agent.base.histogram import histogram
from agent.base.incremental import Work
from agent.base.prometheus import Family, counter, gauge
from agent.connections.calls import ALLOWED, MOST
from agent.connections.connection import Connection
from agent.connections.ledger import Ledger, LiveTunnel
from agent.connections.records import Direction, Finished, address_and_why
from agent.net.admission import Displaced, Overflow
from agent.net.listeners import Listeners, limits_reached
from agent.outbound.listeners import UpstreamListeners
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.proxy import upstream_report
from agent.proxy.reconcile import PUBLIC
from upstreams.travel import TunnelStanding

MOST_ROWS = 1000  # connections in one answer
FROM_ZERO = {
    Direction.INBOUND: {ALLOWED: 0, VerdictReason.INTENTION_DENY.value: 0},
    Direction.OUTBOUND: {ALLOWED: 0, OutboundReason.DENIED_BY_PEER.value: 0},
}
INTERNAL_ERRORS = "sidecar_internal_errors_total"
STEP_SECONDS = "sidecar_connection_step_seconds"

Row: TypeAlias = dict[str, Any]


class DataPlaneReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a data plane. The rows are those of `/status`, and empty unless asked for."""

    live: int
    oldest_seconds: float = 0.0  # the age of the oldest live connection
    unheard: bool = False  # a worker has not answered in time; it may have connections
    resident_bytes: int
    metrics: list[Family]
    counters: Row
    failing: list[str] = []  # calls that fail now, one text each
    public: Row | None = None
    upstreams: list[Row] = []
    connections: list[Row] = []
    connections_not_shown: int = 0
    tunnels: list[Row] = []
    recent: list[Row] = []
    workers: list[Row] | None = None  # None: one process


def report(
    ledger: Ledger,
    upstreams: UpstreamListeners,
    errors: Mapping[str, int],
    now: datetime,
    *,
    rows: bool,
    tunnels: TunnelStanding | None = None,
) -> Work[DataPlaneReport]:
    """Make the report of this process in steps; `errors` counts unforeseen exceptions by `Where`.

    `tunnels` are those that this process makes; None: it makes none.
    """
    metrics = yield from _families(ledger, upstreams)
    live = ledger.live()
    bare = DataPlaneReport(
        live=len(live),
        oldest_seconds=trio.current_time() - live[0].began if live else 0.0,
        resident_bytes=resident_bytes(),
        metrics=[*metrics, _internal_errors(errors)],
        counters={**_counters(ledger), "internal_errors": dict(errors)},
        failing=[*limits_reached(upstreams.listeners), *ledger.failing.texts(upstreams.names)],
    )
    if not rows:
        return bare
    upstream_rows = yield from upstream_report.rows(upstreams, now, tunnels)
    return msgspec.structs.replace(
        bare,
        public=upstream_report.opening_row(upstreams.listeners.get(PUBLIC)),
        upstreams=upstream_rows,
        connections=[_connection(connection) for connection in live[-MOST_ROWS:]],
        connections_not_shown=max(0, len(live) - MOST_ROWS),
        tunnels=[_tunnel(tunnel) for tunnel in ledger.live_tunnels()[-MOST_ROWS:]],
        recent=[_finished(finished) for finished in ledger.recent()],
    )


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return _memory_bytes(1)


def virtual_bytes() -> int:
    """Return the size of this process's address space."""
    return _memory_bytes(0)


def _memory_bytes(column: int) -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[column]  # proc(5)
    return int(pages) * resource.getpagesize()


def _families(ledger: Ledger, upstreams: UpstreamListeners) -> Work[list[Family]]:
    names = dict.fromkeys(str(one.upstream.destination) for one in upstreams.current.values())
    found: list[Family] = []
    for family in _connection_families(ledger, names):
        found.append(family)
        yield
    found += yield from _listener_families(upstreams.listeners)
    return [*found, *(yield from upstream_report.families(upstreams))]


def _internal_errors(errors: Mapping[str, int]) -> Family:
    family = counter(INTERNAL_ERRORS, "Unforeseen exceptions, by what they have ended.")
    for where in Where:
        family.add(errors.get(where.value, 0), where=where.value)
    return family


def _connection(connection: Connection) -> Row:
    address, why = address_and_why(connection.dialled)
    return {
        "id": connection.id,
        "direction": connection.direction.value,
        "caller": connection.caller,
        "upstream": connection.upstream,
        "peer": "" if connection.peer is None else str(connection.peer.id),
        "peer_serial": "" if connection.peer is None else connection.peer.serial,
        "rule": connection.rule,
        "handling": connection.handling.value,
        "address": address,
        "why": why,
        "opened": connection.opened,
        "since": _time(connection.since),
        "to_plain": connection.progress.to_plain,
        "to_tls": connection.progress.to_tls,
    }


def _tunnel(live: LiveTunnel) -> Row:
    tunnel, streams = live.connection, live.streams
    return {
        "id": tunnel.id,
        "direction": tunnel.direction.value,
        "caller": tunnel.caller,
        "upstream": tunnel.upstream,
        "peer": "" if tunnel.peer is None else str(tunnel.peer.id),
        "peer_serial": "" if tunnel.peer is None else tunnel.peer.serial,
        "address": tunnel.dialled,
        "generation": live.generation,
        "since": _time(tunnel.since),
        "age_seconds": round(trio.current_time() - tunnel.began, 3),
        "streams": streams.streams,
        "streams_opened": streams.opened,
    }


def _finished(finished: Finished) -> Row:
    address, why = address_and_why(finished.dialled)
    return {
        "id": finished.id,
        "direction": finished.direction.value,
        "reason": finished.reason.value,
        "detail": finished.detail,
        "caller": finished.caller,
        "upstream": finished.upstream,
        "peer": finished.peer,
        "peer_serial": "" if finished.theirs is None else finished.theirs.serial,
        "rule": finished.rule,
        "admitted_by": finished.admitted_by,
        "address": address,
        "why": why,
        "opened": finished.opened,
        "since": _time(finished.since),
        "until": _time(finished.until),
        "to_plain": finished.to_plain,
        "to_tls": finished.to_tls,
    }


def _counters(ledger: Ledger) -> Row:
    """Return how many connections, requests and bytes there were."""
    endings: dict[str, dict[str, int]] = {direction.value: {} for direction in Direction}
    for (direction, reason), count in sorted(ledger.counters().items()):
        endings[direction.value][reason] = count
    return {
        "endings": endings,
        "attempts_failed": dict(ledger.failed_attempts()),
        "calls": _calls(ledger),
        "requests": dict(ledger.requests()),
        "audited": dict(ledger.audits()),
        "exposed": dict(ledger.exposures()),
        "probes": ledger.probes,
        "bytes": {
            direction.value: dict(zip(("to_plain", "to_tls"), ledger.bytes(direction), strict=True))
            for direction in Direction
        },
    }


def _calls(ledger: Ledger) -> dict[str, Mapping[str, int]]:
    """Return ended connections by direction and other end, and by verdict."""
    return {
        f"{direction.value} {name}": verdicts
        for direction in Direction
        for name, verdicts in ledger.calls.counts(direction).items()
    }


def _call_family(ledger: Ledger, upstreams: Iterable[str]) -> Family:
    """Return ended connections by the other end's service and datacenter, and by verdict.

    A name is there from zero: an upstream at once, a caller from its first connection on.
    """
    family = counter("sidecar_calls_total", "Ended connections, by caller or upstream, and verdict.")
    for direction in Direction:
        counts = dict(ledger.calls.counts(direction))
        if direction is Direction.OUTBOUND:
            counts = {**{name: {} for name in islice(upstreams, MOST)}, **counts}
        for name, counted in counts.items():
            verdicts = {**FROM_ZERO[direction], **counted}
            service, _, datacenter = name.rpartition("@") if "@" in name else (name, "", "")
            for verdict, count in sorted(verdicts.items()):
                labels = {"service": service, "datacenter": datacenter, "verdict": verdict}
                family.add(count, direction=direction.value, **labels)
    return family


def _connection_families(ledger: Ledger, upstreams: Iterable[str]) -> Iterator[Family]:
    live = gauge("sidecar_connections_live", "Live connections, by direction.")
    moved = counter("sidecar_bytes_total", "Bytes relayed, by the leg they were written to.")
    for direction in Direction:
        live.add(len(ledger.live(direction)), direction=direction.value)
        to_plain, to_tls = ledger.bytes(direction)
        moved.add(to_plain, direction=direction.value, leg="plain")
        moved.add(to_tls, direction=direction.value, leg="tls")
    ended = counter("sidecar_connections_total", "Ended connections, by direction and reason.")
    for (of, reason), count in sorted(ledger.counters().items()):
        ended.add(count, direction=of.value, reason=reason)
    attempts = counter("sidecar_attempts_failed_total", "Failed attempts at upstream candidates, by reason.")
    for reason, count in sorted(ledger.failed_attempts().items()):
        attempts.add(count, reason=reason)
    requests = counter("sidecar_http_requests_total", "Judged HTTP requests, by the reason of the verdict.")
    for reason, count in sorted(ledger.requests().items()):
        requests.add(count, reason=reason)
    audited = counter("sidecar_audited_total", "Calls that intentions deny and audit mode allowed.")
    for reason, count in sorted(ledger.audits().items()):
        audited.add(count, reason=reason)
    exposed = counter("sidecar_exposed_requests_total", "Connections to exposed paths, by how they ended.")
    for reason, count in sorted(ledger.exposures().items()):
        exposed.add(count, reason=reason)
    probes = counter("sidecar_probes_total", "TCP health checks, which count as no caller and no refusal.")
    steps = histogram(STEP_SECONDS, "How long a step of ended connections took.")
    yield from (live, moved, ended, _call_family(ledger, upstreams), attempts, requests, audited, exposed)
    yield ledger.timings.add_to(steps)
    rejudged = histogram("sidecar_rejudge_seconds", "From a changed value to the end of judging all anew.")
    ledger.timings.rejudged.add_to(rejudged)
    yield rejudged
    yield probes.add(ledger.probes)
    spans = counter("sidecar_spans_total", "Spans of `tracing_endpoint`, by what became of them.")
    for result, count in (ledger.tracing.counts() if ledger.tracing is not None else {}).items():
        spans.add(count, result=result)
    yield spans
    yield from _tunnel_families(ledger)


def _tunnel_families(ledger: Ledger) -> Iterator[Family]:
    live = gauge("sidecar_tunnels_live", "Live tunnels, by direction; their streams count as connections.")
    for direction in Direction:
        live.add(len(ledger.tunnels(direction)), direction=direction.value)
    ended = counter("sidecar_tunnels_total", "Ended tunnels, by direction and reason.")
    for (of, reason), count in sorted(ledger.tunnel_counters().items()):
        ended.add(count, direction=of.value, reason=reason)
    yield from (live, ended)


def _listener_families(listeners: Listeners) -> Work[list[Family]]:
    limit = gauge("sidecar_listener_limit", "The limit of live connections; absent: none by a setting.")
    live = gauge("sidecar_listener_live", "Live connections of a listener.")
    most = gauge("sidecar_listener_most", "The most live connections at once since the start.")
    is_open = gauge("sidecar_listener_open", "1 if the listener accepts callers.")
    unsettled_limit = gauge(
        "sidecar_listener_handshakes_limit", "The limit of unfinished handshakes; absent: none."
    )
    unsettled = gauge("sidecar_listener_handshakes", "Accepted callers in their handshake.")
    most_unsettled = gauge("sidecar_listener_handshakes_most", "The most of them at once since the start.")
    overflow = counter("sidecar_listener_overflow_total", "Callers turned away by a limit, by reason.")
    waiting = gauge("sidecar_listener_waiting", "Accepted callers in line for a slot.")
    left = counter("sidecar_listener_left_total", "Callers that left the line before their turn.")
    displaced = counter("sidecar_listener_displaced_total", "Callers closed to give another caller the slot.")
    for place, (key, opening) in enumerate(listeners.all().items(), start=1):
        if place % upstream_report.PIECE == 0:
            yield
        name, admission = str(key), opening.admission
        live.add(admission.live, listener=name)
        most.add(admission.most, listener=name)
        is_open.add(opening.listening, listener=name)
        unsettled.add(admission.unsettled, listener=name)
        most_unsettled.add(admission.most_unsettled, listener=name)
        for reason in Overflow:
            overflow.add(admission.refused[reason], listener=name, reason=reason.value)
        waiting.add(admission.waiting, listener=name)
        left.add(admission.left, listener=name)
        for kind in Displaced:
            displaced.add(admission.displaced[kind], listener=name, reason=kind.value)
        if admission.limit is not None:
            limit.add(admission.limit, listener=name)
        if admission.unsettled_limit is not None:
            unsettled_limit.add(admission.unsettled_limit, listener=name)
    yield
    families = [limit, live, most, is_open, unsettled_limit, unsettled, most_unsettled, overflow]
    return [*families, waiting, left, displaced]


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
