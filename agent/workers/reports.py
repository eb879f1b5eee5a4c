"""What a worker says of itself, and how the words of all become those of one agent.

The numbers of a worker that has died stay in the sums, as of its last report: a counter never goes back. What
it did in the second before its death is lost with it.
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

# Numbers that each worker has of one and the same thing; of all others the sum is told.
_NOT_ADDED = frozenset(
    {
        "sidecar_listener_open",
        "sidecar_upstream_active",
        "sidecar_upstream_ejected",
        "sidecar_upstream_endpoints",
    }
)
LIVE, ENDED = "sidecar_connections_live", "sidecar_connections_total"
WORKER_DIED = "worker_died"  # how a connection of a worker that died has ended
_LISTENER_SUMS = (
    *("live", "most", "admitted", "handshakes", "handshakes_most", "overflow"),
    *("waiting", "left"),
)
_LISTENER_TABLES = ("overflow_by_reason", "displaced")
_LISTENER_LIMITS = ("limit", "handshakes_limit")

Row: TypeAlias = dict[str, Any]
Sample: TypeAlias = tuple[dict[str, str], float]


class Reported(DataPlaneReport, frozen=True, tag=True, kw_only=True):
    """The answer of a worker to a report; `cut` once it has finished."""

    number: int
    pid: int
    cut: int | None = None

    def __post_init__(self) -> None:
        """A worker may have been taken over by a caller: what cannot be added up is not taken."""
        if not _countable(self.counters, 3):
            raise ValueError("the counters are no tables of numbers")


class AskedAgain(msgspec.Struct, frozen=True, tag=True):
    """Endpoints failed: their source is to be asked again, by its number."""

    number: int


class GatewaysWanted(msgspec.Struct, frozen=True, tag=True):
    """A connection looks for the mesh gateways of that datacenter; None is our own."""

    datacenter: str | None


Word = Reported | AskedAgain | GatewaysWanted
_DECODER: msgspec.json.Decoder[Word] = msgspec.json.Decoder(Word)


class NotAWord(Exception):
    """A frame that is nothing a worker says."""


def _countable(value: object, levels: int) -> bool:
    """Whether it is a number, or tables of numbers in so many levels."""
    if isinstance(value, dict):
        return levels > 0 and all(_countable(inner, levels - 1) for inner in value.values())
    return isinstance(value, int)


def read(frame: bytes) -> Word:
    """A worker's word; raise NotAWord."""
    try:
        return _DECODER.decode(frame)
    except UNDECODABLE as error:
        raise NotAWord(str(error)) from error


def reported(
    report: DataPlaneReport, number: int, *, lines_lost: int = 0, cut: int | None = None
) -> Reported:
    """The report of a worker as its answer; the log lines that it lost are counted with the rest."""
    counted = msgspec.structs.replace(report, counters={**report.counters, "log_lines_lost": lines_lost})
    return Reported(number=number, pid=os.getpid(), cut=cut, **msgspec.structs.asdict(counted))


def added_up(reports: Iterable[Reported], ended: Reported | None, *own: Family) -> list[Family]:
    """The metrics of all workers as one, and some of our own; `ended` is `buried`."""
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
    """What of a dead worker counts on for ever, with those who died before it.

    The connections it had have ended, with a reason as every other.
    """
    counting = [one for one in last.metrics if one.kind is Kind.COUNTER]
    living = [sample for one in last.metrics if one.name == LIVE for sample in one.samples]
    lost = {of.get("direction", ""): {WORKER_DIED: int(count)} for of, count in living if count}
    if lost:
        samples: list[Sample] = [
            ({"direction": direction, "reason": WORKER_DIED}, count)
            for direction, of in lost.items()
            for count in of.values()
        ]
        counting.append(Family(ENDED, Kind.COUNTER, "Finished connections by how they ended.", samples))
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
    """The control process's own report with what its workers say laid into it."""
    every = list(reports.values())
    connections = [{"worker": slot, **row} for slot, told in reports.items() for row in told.connections]
    connections.sort(key=lambda row: str(row["since"]))
    recent = [{"worker": slot, **row} for slot, told in reports.items() for row in told.recent]
    recent.sort(key=lambda row: str(row["until"]))
    over = max(0, len(connections) - MOST_ROWS)
    counters = [told.counters for told in (*every, *([ended] if ended else []))]
    errors = [family for family in own.metrics if family.name == INTERNAL_ERRORS]
    return DataPlaneReport(
        live=sum(told.live for told in every),
        resident_bytes=own.resident_bytes,
        metrics=[*processes, *added_up(every, ended, *errors)],
        counters=_sum([own.counters, *counters]),
        public=_listener(own.public, [told.public for told in every]),
        upstreams=[_upstream(row, every) for row in own.upstreams],
        connections=connections[over:],
        connections_not_shown=over + sum(told.connections_not_shown for told in every),
        recent=recent[-RECENT:],
        workers=workers,
    )


def _listener(row: Row | None, theirs: Sequence[Row | None]) -> Row | None:
    """One listener's row: where it is from the control process, what happened there from the workers."""
    known = [one for one in theirs if one is not None]
    if row is None or not known:
        return row
    told = dict(row)
    for name in _LISTENER_SUMS:
        told[name] = sum(one[name] for one in known)
    for name in _LISTENER_LIMITS:
        limits = [one[name] for one in known]
        told[name] = None if None in limits else sum(limits)
    for name in _LISTENER_TABLES:
        told[name] = _sum([one[name] for one in known])
    return told


def _upstream(row: Row, reports: Sequence[Reported]) -> Row:
    theirs = [one for told in reports for one in told.upstreams if one["bind"] == row["bind"]]
    if not theirs:
        return row
    # Each has its own experience of endpoints, and fails over by that: told is who changed last.
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
    """A target's row with the load of all and whatever any of them has ejected."""
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
        endpoints.append({**endpoint, "live": live, "ejected_until": until})
    return {**target, "endpoints": endpoints}


def _sum(trees: Sequence[Row]) -> Row:
    """Numbers added up, lists one after the other, tables by their keys; of two kinds the later."""
    total: Row = {}
    for tree in trees:
        for key, value in tree.items():
            before = total.get(key)
            if isinstance(value, Mapping):
                total[key] = _sum([dict(before) if isinstance(before, Mapping) else {}, dict(value)])
            else:
                total[key] = value if before is None or isinstance(before, Mapping) else before + value
    return total
