"""`/metrics`: read off the parts at the moment of the scrape. Labels are the named reasons.

Nothing is counted here: what has a number has it in the ledger, in a watch's status or in an admission, once.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import trio

from agent import VERSION
from agent.base.prometheus import Family, counter, gauge
from agent.connections.records import Direction
from agent.control import report as credential_status
from agent.net.accept import Overflow
from agent.observe.readiness import missing
from agent.parts import Parts
from agent.proxy import upstream_report as upstream_status


def families(parts: Parts) -> Iterator[Family]:
    """Every metric as it is now."""
    yield from control_plane(parts)
    yield from data_plane(parts)


def control_plane(parts: Parts) -> Iterator[Family]:
    """The process itself, and what it knows."""
    yield from _process(parts)
    yield from credential_status.families(parts)
    yield from _watches(parts)


def data_plane(parts: Parts) -> Iterator[Family]:
    """Connections, and where they come from and go to."""
    yield from _connections(parts)
    yield from _listeners(parts)
    yield from upstream_status.families(parts)


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def open_files() -> int:
    """How many descriptors are open."""
    with os.scandir("/proc/self/fd") as entries:
        return sum(1 for _ in entries)


def _process(parts: Parts) -> Iterator[Family]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("sidecar_info", "The version; always 1.").add(1, version=VERSION)
    yield gauge("sidecar_ready", "Whether the agent can serve.").add(not missing(parts))
    yield gauge("sidecar_start_time_seconds", "When it started.").add(parts.started.timestamp())
    yield gauge("process_resident_memory_bytes", "Resident memory.").add(resident_bytes())
    yield gauge("process_open_fds", "Open files.").add(open_files())
    yield gauge("process_max_fds", "The limit of open files.").add(limit)
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield gauge("sidecar_tasks", "Tasks of trio's, its own among them.").add(tasks)
    yield gauge("sidecar_audit_mode", "Whether intentions are only audited.").add(parts.settings.audit)
    intentions = parts.intentions.value
    too_old = gauge("sidecar_intentions_too_old", "Whether intentions are older than intentions_max_age.")
    yield too_old.add(intentions is not None and intentions.too_old)
    unsupported = gauge("sidecar_intentions_unsupported", "Intentions that deny as they are not understood.")
    yield unsupported.add(0 if intentions is None else len(intentions.unsupported))
    unknown = gauge(
        "sidecar_default_policy_unknown", "Whether Consul does not say what it lets in by default."
    )
    yield unknown.add(intentions is not None and bool(intentions.default_unknown))
    yield gauge("sidecar_deny_list_entries", "Entries of the deny list.").add(len(parts.deny_file.list))
    unusable = gauge("sidecar_deny_list_unusable", "Whether the deny file cannot be read any more.")
    yield unusable.add(bool(parts.deny_file.complaint))
    no_token = gauge("sidecar_token_unusable", "Whether the token file holds no token.")
    yield no_token.add(bool(parts.token.complaint))
    yield counter("sidecar_log_lines_lost_total", "Log lines nobody could be told.").add(parts.journal.lost)


def _connections(parts: Parts) -> Iterator[Family]:
    ledger = parts.ledger
    live = gauge("sidecar_connections_live", "Live connections.")
    moved = counter("sidecar_bytes_total", "Bytes relayed, by the leg they were written to.")
    for direction in Direction:
        live.add(len(ledger.live(direction)), direction=direction.value)
        to_plain, to_tls = ledger.bytes(direction)
        moved.add(to_plain, direction=direction.value, leg="plain")
        moved.add(to_tls, direction=direction.value, leg="tls")
    ended = counter("sidecar_connections_total", "Finished connections by how they ended.")
    for (of, reason), count in sorted(ledger.counters().items()):
        ended.add(count, direction=of.value, reason=reason)
    attempts = counter("sidecar_attempts_failed_total", "Candidates of upstreams that did not serve.")
    for reason, count in sorted(ledger.failed_attempts().items()):
        attempts.add(count, reason=reason)
    requests = counter("sidecar_http_requests_total", "HTTP requests that were judged, by what decided.")
    for reason, count in sorted(ledger.requests().items()):
        requests.add(count, reason=reason)
    audited = counter("sidecar_audited_total", "What intentions would deny, let through by audit.")
    for reason, count in sorted(ledger.audits().items()):
        audited.add(count, reason=reason)
    probes = counter("sidecar_probes_total", "TCP health checks: neither callers nor refusals.")
    yield from (live, moved, ended, attempts, requests, audited, probes.add(ledger.probes))


def _listeners(parts: Parts) -> Iterator[Family]:
    limit = gauge("sidecar_listener_limit", "Most live connections; absent: no limit of ours.")
    live = gauge("sidecar_listener_live", "Live connections.")
    most = gauge("sidecar_listener_most", "Most there have been at once.")
    is_open = gauge("sidecar_listener_open", "Whether callers are let in.")
    unsettled_limit = gauge(
        "sidecar_listener_handshakes_limit", "Most unfinished handshakes; absent: no limit."
    )
    unsettled = gauge("sidecar_listener_handshakes", "Admitted callers whose handshake is not over.")
    most_unsettled = gauge("sidecar_listener_handshakes_most", "Most of them there have been at once.")
    overflow = counter("sidecar_listener_overflow_total", "Callers turned away because it was full.")
    for key, opening in ({} if parts.listeners is None else parts.listeners.all()).items():
        name, admission = str(key), opening.admission
        live.add(admission.live, listener=name)
        most.add(admission.most, listener=name)
        is_open.add(opening.listening, listener=name)
        unsettled.add(admission.unsettled, listener=name)
        most_unsettled.add(admission.most_unsettled, listener=name)
        for reason in Overflow:
            overflow.add(admission.refused[reason], listener=name, reason=reason.value)
        if admission.limit is not None:
            limit.add(admission.limit, listener=name)
        if admission.unsettled_limit is not None:
            unsettled_limit.add(admission.unsettled_limit, listener=name)
    yield from (limit, live, most, is_open, unsettled_limit, unsettled, most_unsettled, overflow)


def _watches(parts: Parts) -> Iterator[Family]:
    age = gauge("sidecar_watch_age_seconds", "Since the last good answer.")
    changes = counter("sidecar_watch_changes_total", "Values published.")
    failing = gauge("sidecar_watch_failing", "Failures in a row.")
    failures = counter("sidecar_watch_failures_total", "Failures by reason.")
    filtered = gauge("sidecar_watch_filtered", "Whether answers lack what the token may not see.")
    # One query polled at two paces is two watches of one name; a page must not have a sample twice.
    for status in {status.name: status for status in parts.watches()}.values():
        if status.age is not None:
            age.add(status.age, watch=status.name)
        changes.add(status.changes, watch=status.name)
        failing.add(status.failures_in_row, watch=status.name)
        filtered.add(status.filtered, watch=status.name)
        for reason, count in sorted(status.failures.items()):
            failures.add(count, watch=status.name, reason=reason)
    yield from (age, changes, failing, failures, filtered)
