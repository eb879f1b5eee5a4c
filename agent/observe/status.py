"""`/status`: the state of one agent as a JSON document, made of printed values, never of secrets.

Reading it must not burden an agent in trouble: the rows of connections are limited, and the document says how
many are left out.
"""

from __future__ import annotations

import os
from datetime import datetime

import trio

from agent import VERSION
from agent.base.watch_status import WatchStatus
from agent.config.effective import origins
from agent.config.registration import Registration
from agent.control import credentials_report
from agent.observe.agent import Agent
from agent.observe.readiness import acl_remedy, facts, unserved
from agent.overview.headline import headline, health
from agent.policy.authorize import Policy
from agent.proxy.report import DataPlaneReport

MOST_ROWS = 1000  # connections in one answer
SCHEMA = 2  # of the document; raised when a field goes, or changes its meaning, not when one is added

Row = dict[str, object]


async def document(agent: Agent) -> Row:
    """Return the document, as of now."""
    now = agent.control.clock()
    state = facts(agent)
    report = await agent.data.report(rows=True)
    await trio.lowlevel.checkpoint()
    watches = [_watch(status) for status in agent.control.statuses()]
    await trio.lowlevel.checkpoint()  # there may be a thousand of them
    workers = {} if report.workers is None else {"workers": report.workers}
    return {
        "schema": SCHEMA,
        "headline": headline(state),
        "health": health(state).value,
        "version": VERSION,
        "pid": os.getpid(),
        "phase": agent.control.phase.value,
        "ready": not state.missing,
        "missing": state.missing,
        "started": _time(agent.started),
        "uptime_seconds": round(agent.uptime, 3),
        "settings": _settings(agent),
        "placement": _registration(agent),
        "credentials": credentials_report.row(agent.control, now),
        "intentions": _intentions(agent),
        "outgoing": _outgoing(agent),
        "policy": _policy(agent),
        "consul": _consul(agent),
        "replica": _replica(agent),
        "watches": watches,
        "public": report.public,
        "upstreams": report.upstreams,
        "connections": report.connections,
        "connections_not_shown": report.connections_not_shown,
        "tunnels": report.tunnels,
        "recent": report.recent,
        "counters": _counters(agent, report),
        "admin": agent.admin_addresses,
        "complaints": _complaints(agent),
        "last_run": [] if agent.last_run is None else agent.last_run.values(),
        **workers,
    }


def _counters(agent: Agent, report: DataPlaneReport) -> Row:
    """Return the data plane's counters, and those of the control plane and the log."""
    keeper, lost = agent.control.credentials, report.counters.get("log_lines_lost", 0)
    return {
        **report.counters,
        "log_lines_lost": lost + agent.log.lost,
        "credentials_rejected": {} if keeper is None else dict(keeper.status.rejections),
    }


def _settings(agent: Agent) -> Row:
    rows: dict[str, object] = {
        name: {"value": value, "origin": str(origin)}
        for name, value, origin in agent.control.settings.effective()
    }
    registration = agent.control.snapshot.registration.value
    if registration is not None:
        for name, (value, origin) in origins(registration, agent.control.settings).items():
            rows[name] = {"value": value, "origin": str(origin)}
    return rows


def _registration(agent: Agent) -> Row | None:
    registration = agent.control.snapshot.registration.value
    if registration is None:
        return None
    return {
        "proxy_id": registration.proxy_id,
        "service": registration.service,
        "service_id": registration.service_id,
        "datacenter": registration.datacenter,
        "public_bind": _text(registration.public_bind),
        "local_app": _text(registration.local_app),
        "exposed": [f"{one} to {one.app}" for one in registration.exposed],
        "protocol": registration.protocol,
        "underscores_in_headers": registration.underscores_in_headers,
        "handshake_timeout_seconds": registration.handshake_timeout,
        "local_connect_timeout_seconds": registration.local_connect_timeout,
        "problems": [str(problem) for problem in registration.problems],
    }


def _intentions(agent: Agent) -> Row | None:
    policy, freshness = agent.control.snapshot.policy.value, agent.control.intentions.freshness
    if policy is None:
        return None
    intentions = policy.intentions
    return {
        "default": intentions.default,
        "default_origin": intentions.default_origin,
        "default_unknown": intentions.default_unknown,
        "good_until": _time(freshness.good_until),
        "too_old": freshness.too_old_since() is not None,
        "rules": [str(rule) for rule in intentions.rules],
        "unsupported": intentions.unsupported,
    }


def _outgoing(agent: Agent) -> Row | None:
    """Return the intentions that deny us, or every source, a call; None while they are not known."""
    outgoing = agent.control.snapshot.source_intentions.value
    return None if outgoing is None else {"rules": outgoing.rules}


def _consul(agent: Agent) -> Row:
    """Return how the watches share the connections to the Consul agent."""
    budget = agent.control.budget
    return {
        "connections": budget.connections or None,
        "connections_most": budget.most or None,
        "connections_of_this_host": agent.control.room.host,
        "watches_held": budget.held,
        "watches_in_turn": budget.in_turn,
        "turn_seconds": round(budget.turn_seconds, 3),
    }


def _replica(agent: Agent) -> Row | None:
    """Return how old our datacenter's replica is; None until our service is known."""
    replica = agent.control.replica
    if replica is None:
        return None
    rows: Row = {"primary": replica.primary or None}
    for name, part in replica.parts.items():
        age = None if part.age is None else round(part.age, 1)
        rows[name] = {"state": part.reason.value, "confirmed_seconds_ago": age, "detail": part.detail}
    return rows


def _policy(agent: Agent) -> Row:
    """Return the settings that decide about callers beside intentions."""
    settings = agent.control.settings
    return {
        "audit": settings.audit,
        "strict": settings.strict,
        "narrow": [str(narrowing) for narrowing in settings.narrow or ()],
        "deny_file": _text(settings.deny_file),
        "deny_entries": len(agent.control.deny_file.list),
    }


def _complaints(agent: Agent) -> list[str]:
    """Return the lines that an operator must not overlook."""
    audit = "AUDIT MODE: intentions are not enforced" if agent.control.settings.audit else ""
    deny_file = (
        agent.control.deny_file.complaint
        and f"deny_file: {agent.control.deny_file.complaint}; the old list is in force"
    )
    policy = _policy_complaints(agent.control.snapshot.policy.value)
    complaints = (
        audit,
        _portless(agent.control.snapshot.registration.value),
        *policy,
        deny_file,
        agent.control.token.complaint,
        _refusals(agent),
        *agent.complaints,
        *unserved(agent),
        *(() if agent.control.replica is None else agent.control.replica.complaints),
        agent.log.problem,
        *agent.data.warnings(),
    )
    return [complaint for complaint in complaints if complaint]


def _refusals(agent: Agent) -> str:
    """Return that Consul refuses the token for a watch of our own service, though the agent serves."""
    refusals = {status.name: acl_remedy(agent, status) for status in agent.control.own_statuses()}
    names = [name for name, remedy in refusals.items() if remedy]
    if not names:
        return ""
    last = "the last good values are in force, and no new leaf comes"
    return f"Consul refuses the token ({', '.join(names)}): {refusals[names[0]]}; meanwhile {last}"


def _portless(registration: Registration | None) -> str:
    if registration is None or registration.public_bind is None or registration.local_app is not None:
        return ""
    return "no public listener: the app's address is not given (LocalServicePort, or -service-addr)"


def _policy_complaints(policy: Policy | None) -> list[str]:
    if policy is None:
        return []
    intentions = policy.intentions
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


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
