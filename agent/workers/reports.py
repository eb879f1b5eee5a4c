"""The reports of workers, and how they are merged into the report of one agent.

The counters of a dead worker stay in the sums, as of its last report, since a counter must never go back.
What it counted in the second before its death is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from agent.base.prometheus import Family, Kind
from agent.base.undecodable import UNDECODABLE
from agent.connections.ledger import RECENT
from agent.proxy.report import INTERNAL_ERRORS, MOST_ROWS, DataPlaneReport
from agent.workers.rows import Rows
from upstreams.travel import TravelReason

# Metrics that each worker has about the same thing; all others are summed.
_NOT_ADDED = frozenset(
    {
        "sidecar_listener_open",
        "sidecar_upstream_active",
        "sidecar_upstream_ejected",
        "sidecar_upstream_endpoints",
        "sidecar_upstream_instances",
    }
)
LIVE, ENDED = "sidecar_connections_live", "sidecar_connections_total"
WORKER_DIED = "worker_died"  # the reason of connections that a dead worker had
_LISTENER_SUMS = (
    *("live", "most", "admitted", "handshakes", "handshakes_most", "overflow"),
    *("waiting", "left"),
)
_LISTENER_TABLES = ("overflow_by_reason", "displaced")
_LISTENER_LIMITS = ("limit", "handshakes_limit")

Row: TypeAlias = dict[str, Any]
_OF_TUNNELS = (TravelReason.REFUSED, TravelReason.FULL)  # known only to the worker that has tried
Sample: TypeAlias = tuple[dict[str, str], float]


class Reported(DataPlaneReport, frozen=True, tag=True, kw_only=True):
    """A worker's answer to `Report`; `cut`: the connections closed at its end, after `Finish`."""

    number: int
    pid: int
    cut: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for counters that cannot be added: a caller may have taken the worker over."""
        if not _countable(self.counters, 3):
            raise ValueError("the counters are no tables of numbers")


class AskedAgain(msgspec.Struct, frozen=True, tag=True):
    """Endpoints have failed: ask their source again, by its number."""

    number: int


class GatewaysWanted(msgspec.Struct, frozen=True, tag=True):
    """A connection needs the mesh gateways of a datacenter, None for our own."""

    datacenter: str | None


class RefusalsUnexplained(msgspec.Struct, frozen=True, tag=True):
    """A callee has refused us: look up the intentions with our service as source."""


WorkerRequest = AskedAgain | GatewaysWanted | RefusalsUnexplained
WorkerMessage = Reported | WorkerRequest
_DECODER: msgspec.json.Decoder[WorkerMessage] = msgspec.json.Decoder(WorkerMessage)


class NotAWorkerMessage(Exception):
    """A frame that is no message of a worker."""


def _countable(value: object, levels: int) -> bool:
    """Return whether a value is a number, or nested tables of numbers of at most `levels`."""
    if isinstance(value, dict):
        return levels > 0 and all(_countable(inner, levels - 1) for inner in value.values())
    return isinstance(value, int)


def read(frame: bytes) -> WorkerMessage:
    """Decode a message of a worker. Raises NotAWorkerMessage."""
    try:
        message = _DECODER.decode(frame)
        if isinstance(message, Reported):
            msgspec.convert(message, Rows, from_attributes=True)
    except UNDECODABLE as error:
        raise NotAWorkerMessage(str(error)) from error
    return message


def reported(
    report: DataPlaneReport, number: int, *, lines_lost: int = 0, cut: int | None = None
) -> Reported:
    """Return a worker's report as its answer, with the log lines it has lost among the counters."""
    counted = msgspec.structs.replace(report, counters={**report.counters, "log_lines_lost": lines_lost})
    return Reported(number=number, pid=os.getpid(), cut=cut, **msgspec.structs.asdict(counted))


def added_up(reports: Iterable[Reported], ended: Reported | None, *own: Family) -> list[Family]:
    """Return the metrics of all workers, of the ended ones, and `own`, added up by name and labels."""
    families: dict[str, Family] = {}
    sums: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    measured = [one for reported in reports for one in reported.metrics]
    measured += [*(() if ended is None else ended.metrics), *own]
    for one in measured:
        families.setdefault(one.name, Family(one.name, one.kind, one.says))
        samples = sums.setdefault(one.name, {})
        for labels, value in one.samples:
            key = tuple(labels.items())
            before = samples.get(key, 0.0)
            samples[key] = max(before, value) if one.name in _NOT_ADDED else before + value
    for name, family in families.items():
        family.samples = [(dict(key), value) for key, value in sums[name].items()]
    return list(families.values())


def retired(ended: Reported | None, last: Reported) -> Reported:
    """Return the counters of all dead workers, after one more has died.

    The connections it had count as ended, with the reason `worker_died`.
    """
    counting = [one for one in last.metrics if one.kind is not Kind.GAUGE]
    living = [sample for one in last.metrics if one.name == LIVE for sample in one.samples]
    lost = {of.get("direction", ""): {WORKER_DIED: int(count)} for of, count in living if count}
    if lost:
        samples: list[Sample] = [
            ({"direction": direction, "reason": WORKER_DIED}, count)
            for direction, of in lost.items()
            for count in of.values()
        ]
        counting.append(Family(ENDED, Kind.COUNTER, "Ended connections, by direction and reason.", samples))
    counters = _sum([last.counters, {"endings": lost}])
    last = msgspec.structs.replace(last, metrics=counting, counters=counters)
    if ended is None:
        return last
    counters = _sum([ended.counters, last.counters])
    return msgspec.structs.replace(last, metrics=added_up([last], ended), counters=counters)


def merged(
    own: DataPlaneReport,
    reports: Mapping[int, Reported],
    ended: Reported | None,
    *,
    processes: list[Family],
    workers: list[Row],
) -> DataPlaneReport:
    """Return the control process's own report with the workers' reports merged into it."""
    every = list(reports.values())
    connections = [{"worker": slot, **row} for slot, report in reports.items() for row in report.connections]
    connections.sort(key=lambda row: str(row["since"]))
    recent = [{"worker": slot, **row} for slot, report in reports.items() for row in report.recent]
    tunnels = [{"worker": slot, **row} for slot, report in reports.items() for row in report.tunnels]
    recent.sort(key=lambda row: str(row["until"]))
    over = max(0, len(connections) - MOST_ROWS)
    counters = [report.counters for report in (*every, *([ended] if ended else []))]
    errors = [family for family in own.metrics if family.name == INTERNAL_ERRORS]
    return DataPlaneReport(
        live=sum(report.live for report in every),
        oldest_seconds=max((report.oldest_seconds for report in every), default=0.0),
        resident_bytes=own.resident_bytes,
        metrics=[*processes, *added_up(every, ended, *errors)],
        counters=_sum([own.counters, *counters]),
        public=_listener(own.public, [report.public for report in every]),
        upstreams=[_upstream(row, every) for row in own.upstreams],
        connections=connections[over:],
        connections_not_shown=over + sum(report.connections_not_shown for report in every),
        tunnels=tunnels[:MOST_ROWS],
        recent=recent[-RECENT:],
        workers=workers,
    )


def _listener(row: Row | None, theirs: Sequence[Row | None]) -> Row | None:
    """Return a listener's row: its address from the control process, its numbers from the workers."""
    known = [one for one in theirs if one is not None]
    if row is None or not known:
        return row
    total = dict(row)
    for name in _LISTENER_SUMS:
        total[name] = sum(one[name] for one in known)
    for name in _LISTENER_LIMITS:
        limits = [one[name] for one in known]
        total[name] = None if None in limits else sum(limits)
    total["pressure"] = next((said for one in known if (said := one.get("pressure"))), "")
    for name in _LISTENER_TABLES:
        total[name] = _sum([one[name] for one in known])
    return total


def _upstream(row: Row, reports: Sequence[Reported]) -> Row:
    theirs = [one for report in reports for one in report.upstreams if one["bind"] == row["bind"]]
    if not theirs:
        return row
    # Each worker has its own failures and fails over by them; shown is the target of the last change.
    newest = max(theirs, key=lambda one: one["active_since"] or "")
    return {
        **row,
        "listener": _listener(row["listener"], [one["listener"] for one in theirs]),
        "active": newest["active"],
        "active_since": newest["active_since"],
        "connections": sum(one["connections"] for one in theirs),
        "waiting": sum(one["waiting"] for one in theirs),
        "warm": _sum([one["warm"] for one in theirs]),
        "overflow": _sum([one["overflow"] for one in theirs]),
        "targets": [_target(target, theirs, "targets") for target in row["targets"]],
        "gateways": [_target(gateways, theirs, "gateways") for gateways in theirs[0]["gateways"]],
    }


def _target(target: Row, theirs: Sequence[Row], kind: str) -> Row:
    """Return a target's row with the load of all workers, and an ejection if any worker has one."""
    rows = [
        endpoint
        for one in theirs
        for other in one[kind]
        if other["watch"] == target["watch"]
        for endpoint in other["endpoints"]
    ]
    endpoints = []
    for endpoint in target["endpoints"]:
        same = [row for row in rows if row["instance"] == endpoint["instance"]]
        until = max((row["ejected_until"] for row in same if row["ejected_until"]), default=None)
        live = sum(row["live"] for row in same)
        told = max(same, key=lambda row: row.get("travel") in _OF_TUNNELS, default=endpoint)
        travel = {name: told[name] for name in ("travel", "travel_says") if name in told}
        endpoints.append({**endpoint, **travel, "live": live, "ejected_until": until})
    return {**target, "endpoints": endpoints}


def _sum(trees: Sequence[Row]) -> Row:
    """Add numbers, join lists, and merge tables by their keys; of two kinds the later one wins."""
    total: Row = {}
    for tree in trees:
        for key, value in tree.items():
            before = total.get(key)
            if isinstance(value, Mapping):
                total[key] = _sum([dict(before) if isinstance(before, Mapping) else {}, dict(value)])
            else:
                total[key] = value if before is None or isinstance(before, Mapping) else before + value
    return total
