"""`/status`: the whole truth about one agent as one JSON document, built of printed values, never of secrets.

What an operator reads while something is wrong must not make it worse: rows of connections are bounded, and
how many are left out is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime

from agent import VERSION
from agent.config.effective import origins
from agent.connections.connection import Connection
from agent.connections.records import Direction, Finished
from agent.consul.watch import WatchStatus
from agent.control import report as credential_status
from agent.observe.readiness import missing
from agent.parts import Parts
from agent.policy.intentions import Intentions
from agent.proxy import upstream_report as upstream_status

MOST_ROWS = 1000  # connections in one answer

Row = dict[str, object]


def document(parts: Parts) -> Row:
    """Everything, as it is now."""
    now = parts.clock()
    pieces = missing(parts)
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "phase": parts.phase.value,
        "ready": not pieces,
        "missing": pieces,
        "started": _time(parts.started),
        "uptime_seconds": round(parts.uptime, 3),
        "settings": _settings(parts),
        "placement": _placement(parts),
        "credentials": credential_status.row(parts, now),
        "intentions": _intentions(parts),
        "outgoing": _outgoing(parts),
        "policy": _policy(parts),
        "watches": [_watch(status) for status in parts.watches()],
        **data_plane(parts),
        "counters": counters(parts),
        "admin": parts.admin_addresses,
        "complaints": _complaints(parts),
    }


def data_plane(parts: Parts) -> Row:
    """Where connections come in and what lives."""
    live = parts.ledger.live()
    return {
        "public": upstream_status.opening_row(parts.public),
        "upstreams": upstream_status.rows(parts),
        "connections": [_connection(connection) for connection in live[-MOST_ROWS:]],
        "connections_not_shown": max(0, len(live) - MOST_ROWS),
        "recent": [_finished(finished) for finished in parts.ledger.recent()],
    }


def _settings(parts: Parts) -> Row:
    rows: dict[str, object] = {
        name: {"value": value, "origin": str(origin)} for name, value, origin in parts.settings.effective()
    }
    registration = parts.placement.value
    if registration is not None:
        for name, (value, origin) in origins(registration, parts.settings).items():
            rows[name] = {"value": value, "origin": str(origin)}
    return rows


def _placement(parts: Parts) -> Row | None:
    registration = parts.placement.value
    if registration is None:
        return None
    return {
        "proxy_id": registration.proxy_id,
        "service": registration.service,
        "service_id": registration.service_id,
        "datacenter": registration.datacenter,
        "public_bind": _text(registration.public_bind),
        "local_app": _text(registration.local_app),
        "protocol": registration.protocol,
        "underscores_in_headers": registration.underscores_in_headers,
        "handshake_timeout_seconds": registration.handshake_timeout,
        "local_connect_timeout_seconds": registration.local_connect_timeout,
        "problems": [str(problem) for problem in registration.problems],
    }


def _intentions(parts: Parts) -> Row | None:
    intentions = parts.intentions.value
    if intentions is None:
        return None
    return {
        "default": intentions.default,
        "default_origin": intentions.default_origin,
        "default_unknown": intentions.default_unknown,
        "good_until": _time(intentions.good_until),
        "too_old": intentions.too_old,
        "rules": [str(rule) for rule in intentions.rules],
        "unsupported": intentions.unsupported,
    }


def _outgoing(parts: Parts) -> Row | None:
    """Which intentions keep us, or anybody, from calling others; None while they are not known."""
    outgoing = parts.outgoing.value
    return None if outgoing is None else {"rules": outgoing.rules}


def _policy(parts: Parts) -> Row:
    """What else decides about callers, beside intentions."""
    told = parts.settings
    return {
        "audit": told.audit,
        "strict": told.strict,
        "narrow": [str(narrowing) for narrowing in told.narrow or ()],
        "deny_file": _text(told.deny_file),
        "deny_entries": len(parts.deny_file.list),
    }


def _complaints(parts: Parts) -> list[str]:
    """What an operator must not overlook."""
    audit = "AUDIT MODE: intentions are not enforced" if parts.settings.audit else ""
    deny_file = (
        parts.deny_file.complaint and f"deny_file: {parts.deny_file.complaint}; the old list is in force"
    )
    workers = [] if parts.crew is None else parts.crew.complaints()
    policy = _policy_complaints(parts.intentions.value)
    told = (audit, *policy, deny_file, parts.token.complaint, parts.journal.problem, *workers)
    return [complaint for complaint in told if complaint]


def _policy_complaints(intentions: Intentions | None) -> list[str]:
    if intentions is None:
        return []
    found = []
    if intentions.default_unknown:
        found.append(f"the default policy is unknown, so that it denies: {intentions.default_unknown}")
    if intentions.unsupported:
        found.append(f"intentions that are not understood deny: {len(intentions.unsupported)}")
    return found


def _watch(status: WatchStatus) -> Row:
    failing: Row | None = None
    if status.failing is not None:
        failing = {
            "reason": str(status.failing.reason),
            "detail": str(status.failing),
            "since": _time(status.failing_since),
            "in_row": status.failures_in_row,
        }
    return {
        "name": status.name,
        "answers": status.answers,
        "changes": status.changes,
        "answered_seconds_ago": status.age,
        "failing": failing,
        "failures": dict(status.failures),
        "filtered": status.filtered,
    }


def _connection(connection: Connection) -> Row:
    address, why = _address_and_why(connection.dialled)
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


def _finished(finished: Finished) -> Row:
    address, why = _address_and_why(finished.dialled)
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
        "address": address,
        "why": why,
        "opened": finished.opened,
        "since": _time(finished.since),
        "until": _time(finished.until),
        "to_plain": finished.to_plain,
        "to_tls": finished.to_tls,
    }


def _address_and_why(dialled: str) -> tuple[str, str]:
    """`host:port (reason)`, as a Dialling prints itself; a local app has no reason."""
    address, _, why = dialled.partition(" (")
    return address, why.removesuffix(")")


def counters(parts: Parts) -> Mapping[str, object]:
    """How many connections, requests and bytes there were."""
    ledger = parts.ledger
    endings: dict[str, dict[str, int]] = {direction.value: {} for direction in Direction}
    for (direction, reason), count in sorted(ledger.counters().items()):
        endings[direction.value][reason] = count
    return {
        "endings": endings,
        "attempts_failed": dict(ledger.failed_attempts()),
        "requests": dict(ledger.requests()),
        "audited": dict(ledger.audits()),
        "probes": ledger.probes,
        "log_lines_lost": parts.journal.lost,
        "bytes": {
            direction.value: dict(zip(("to_plain", "to_tls"), ledger.bytes(direction), strict=True))
            for direction in Direction
        },
        "credentials_rejected": {} if parts.rotation is None else dict(parts.rotation.status.rejections),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
