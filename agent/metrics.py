"""`/metrics`: Prometheus text, read off the parts at the moment of the scrape. Labels are the named reasons.

Nothing is counted here: what has a number has it in the ledger, in a watch's status or in an admission, once.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import VERSION
from agent.ledger import Direction
from agent.parts import Parts
from agent.readiness import missing
from upstreams.endpoints import EndpointSet

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """A registry of our own with one collector."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The whole page."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is, is known when it is read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        yield from self._process()
        yield from self._connections()
        yield from self._listeners()
        yield from self._credentials()
        yield from self._watches()
        yield from self._upstreams()

    def _process(self) -> Iterator[Metric]:
        parts = self._parts
        yield _gauge("sidecar_info", "The version; always 1.", 1, version=VERSION)
        yield _gauge("sidecar_ready", "Whether the agent can serve.", float(not missing(parts)))
        yield _gauge("sidecar_start_time_seconds", "When it started.", parts.started.timestamp())
        yield _gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes())
        yield _gauge("process_open_fds", "Open files.", float(len(os.listdir("/proc/self/fd"))))  # noqa: PTH208 - a count
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _gauge("process_max_fds", "The limit of open files.", float(limit))
        yield _counter("sidecar_log_lines_lost", "Log lines nobody could be told.", parts.journal.lost)

    def _connections(self) -> Iterator[Metric]:
        ledger = self._parts.ledger
        live = GaugeMetricFamily("sidecar_connections_live", "Live connections.", labels=["direction"])
        moved = CounterMetricFamily("sidecar_bytes", "Bytes relayed.", labels=["direction", "leg"])
        for direction in Direction:
            live.add_metric([direction.value], len(ledger.live(direction)))
            to_plain, to_tls = ledger.bytes(direction)
            moved.add_metric([direction.value, "plain"], to_plain)
            moved.add_metric([direction.value, "tls"], to_tls)
        ended = CounterMetricFamily(
            "sidecar_connections", "Finished connections by how they ended.", labels=["direction", "reason"]
        )
        for (ended_direction, reason), count in sorted(ledger.counters().items()):
            ended.add_metric([ended_direction.value, reason], count)
        attempts = CounterMetricFamily(
            "sidecar_attempts_failed", "Candidates of upstreams that did not serve.", labels=["reason"]
        )
        for reason, count in sorted(ledger.failed_attempts().items()):
            attempts.add_metric([reason], count)
        probes = _counter("sidecar_probes", "TCP health checks: neither callers nor refusals.", ledger.probes)
        yield from (live, moved, ended, attempts, probes)

    def _listeners(self) -> Iterator[Metric]:
        parts = self._parts
        labels = ["listener"]
        limit = GaugeMetricFamily(
            "sidecar_listener_limit", "Most live connections; absent: none.", labels=labels
        )
        live = GaugeMetricFamily("sidecar_listener_live", "Live connections.", labels=labels)
        most = GaugeMetricFamily("sidecar_listener_most", "Most there have been.", labels=labels)
        opened = GaugeMetricFamily("sidecar_listener_open", "Whether callers are let in.", labels=labels)
        overflow = CounterMetricFamily("sidecar_listener_overflow", "Turned away: full.", labels=labels)
        openings = {} if parts.listeners is None else parts.listeners.all()
        for key, opening in openings.items():
            name = [str(key)]
            live.add_metric(name, opening.admission.live)
            most.add_metric(name, opening.admission.most)
            opened.add_metric(name, float(opening.listening))
            overflow.add_metric(name, opening.admission.overflow)
            if opening.admission.limit is not None:
                limit.add_metric(name, opening.admission.limit)
        yield from (limit, live, most, opened, overflow)

    def _credentials(self) -> Iterator[Metric]:
        parts = self._parts
        contexts = parts.contexts.value
        if contexts is not None:
            leaf, bundle = contexts.credentials.leaf, contexts.credentials.bundle
            expiry = leaf.not_after.timestamp()
            yield _gauge("sidecar_leaf_expiry_timestamp_seconds", "When the leaf in force ends.", expiry)
            yield _gauge("sidecar_roots", "Trusted roots.", len(bundle.roots))
            yield _counter("sidecar_credentials", "Credentials published.", contexts.generation)
        if parts.rotation is not None:
            rejected = CounterMetricFamily(
                "sidecar_credentials_rejected", "Leaf and roots that did not fit.", labels=["reason"]
            )
            for reason, count in sorted(parts.rotation.status.rejections.items()):
                rejected.add_metric([reason], count)
            yield rejected

    def _watches(self) -> Iterator[Metric]:
        now = self._parts.clock()
        labels = ["watch"]
        age = GaugeMetricFamily("sidecar_watch_age_seconds", "Since the last good answer.", labels=labels)
        changes = CounterMetricFamily("sidecar_watch_changes", "Values published.", labels=labels)
        failing = GaugeMetricFamily("sidecar_watch_failing", "Failures in a row.", labels=labels)
        failures = CounterMetricFamily(
            "sidecar_watch_failures", "Failures by reason.", labels=["watch", "reason"]
        )
        for status in self._parts.watches():
            name = [status.name]
            if status.answered_at is not None:
                age.add_metric(name, (now - status.answered_at).total_seconds())
            changes.add_metric(name, status.changes)
            failing.add_metric(name, status.failures_in_row)
            for reason, count in sorted(status.failures.items()):
                failures.add_metric([status.name, reason], count)
        yield from (age, changes, failing, failures)

    def _upstreams(self) -> Iterator[Metric]:
        known = GaugeMetricFamily(
            "sidecar_upstream_endpoints", "Known instances.", labels=["upstream", "datacenter", "status"]
        )
        upstreams = self._parts.upstreams
        seen: set[str] = set()
        for upstream in [] if upstreams is None else list(upstreams.current.values()):
            destination = str(upstream.destination)
            if upstreams is None or destination in seen:
                continue
            seen.add(destination)
            for (datacenter, status), count in _by_place(upstreams.feeds.endpoints(upstream).value).items():
                known.add_metric([destination, datacenter, status], count)
        yield known


def resident_bytes() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * resource.getpagesize())


def _by_place(endpoints: EndpointSet | None) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for endpoint in () if endpoints is None else endpoints.endpoints:
        place = (endpoint.datacenter, endpoint.status.value)
        counts[place] = counts.get(place, 0) + 1
    return counts


def _gauge(name: str, says: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, says, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, says: str, value: float) -> Metric:
    family = CounterMetricFamily(name, says)
    family.add_metric([], value)
    return family
