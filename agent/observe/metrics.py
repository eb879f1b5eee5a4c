"""`/metrics`: reads both planes at the moment of the scrape. Labels are the named reasons.

Nothing is counted here: the ledger, the watches' status and the admission of each listener hold the numbers.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain

import trio

from agent import VERSION
from agent.base.histogram import histogram
from agent.base.prometheus import Family, counter, gauge
from agent.connections.records import CloseReason
from agent.control import credentials_report
from agent.inbound.exposed import ExposedReason
from agent.inbound.verdict import InboundReason
from agent.intentions.replica import Replica
from agent.net.dial import DialReason
from agent.net.handshake import HandshakeReason
from agent.net.shortage import open_files
from agent.observe.agent import Agent
from agent.observe.readiness import facts, missing, unserved
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.proxy.report import resident_bytes, virtual_bytes
from agent.relay.splice import Ending
from certs.peer import PeerReason


async def families(agent: Agent) -> list[Family]:
    """Return every metric with its present value."""
    report = await agent.data.report(rows=False)
    found = []
    for family in chain(control_plane(agent), from_zero(report.metrics)):
        found.append(family)
        await trio.lowlevel.checkpoint()  # hundreds of upstreams make long families
    return found


def from_zero(measured: Iterable[Family]) -> Iterator[Family]:
    """Yield the families with a zero for each reason that has not been met.

    A counter that appears with its first increment shows no increase by it, so no alert sees the first one.
    """
    for family in measured:
        expected = _EXPECTED.get(family.name, ())
        there = {tuple(sorted(labels.items())) for labels, _ in family.samples} if expected else ()
        for labels in expected:
            if tuple(sorted(labels.items())) not in there:
                family.add(0, **labels)
        yield family


def _reasons(*kinds: type[StrEnum]) -> list[str]:
    """Return the reasons of these kinds, but for those that let a call pass and the health check's."""
    names = dict.fromkeys(one.value for kind in kinds for one in kind)
    return [name for name in names if not name.endswith("_allow") and name not in ("probe", _BY_REQUEST)]


_BY_REQUEST = VerdictReason.INTENTION_BY_REQUEST.value
_ATTEMPTS = (DialReason, HandshakeReason, PeerReason)
_INBOUND = (Ending, CloseReason, InboundReason, VerdictReason, HandshakeReason, PeerReason, DialReason)
_OUTBOUND = (Ending, CloseReason, OutboundReason)
_EXPECTED: dict[str, list[dict[str, str]]] = {
    "sidecar_connections_total": [
        {"direction": direction, "reason": reason}
        for direction, kinds in (("inbound", _INBOUND), ("outbound", _OUTBOUND))
        for reason in _reasons(*kinds)
    ],
    "sidecar_attempts_failed_total": [{"reason": one} for one in _reasons(*_ATTEMPTS, OutboundReason)],
    "sidecar_audited_total": [{"reason": one} for one in _reasons(VerdictReason)],
    "sidecar_exposed_requests_total": [{"reason": one.value} for one in ExposedReason],
    "sidecar_http_requests_total": [{"reason": one.value} for one in VerdictReason],
}


def control_plane(agent: Agent) -> Iterator[Family]:
    """Return the metrics of the control process and of what it watches."""
    yield from _process(agent)
    yield from credentials_report.families(agent.control)
    yield from _watches(agent)


def _process(agent: Agent) -> Iterator[Family]:
    control = agent.control
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("sidecar_build_info", "The version as a label; always 1.").add(1, version=VERSION)
    yield gauge("sidecar_ready", "1 if the agent can serve, as /ready says.").add(not missing(agent))
    yield gauge("sidecar_start_time_seconds", "When the agent started, Unix time.").add(
        agent.started.timestamp()
    )
    yield gauge("process_resident_memory_bytes", "Resident memory.").add(resident_bytes())
    yield gauge("process_virtual_memory_bytes", "Size of the address space.").add(virtual_bytes())
    yield counter("process_cpu_seconds_total", "User and system time of the process that answers.").add(
        sum(os.times()[:2])
    )
    yield gauge("process_start_time_seconds", "When the agent started, Unix time.").add(
        agent.started.timestamp()
    )
    yield gauge("process_open_fds", "Open files.").add(open_files())
    yield gauge("process_max_fds", "The limit of open files.").add(limit)
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield gauge("sidecar_tasks", "Living trio tasks, trio's own included.").add(tasks)
    lag = histogram("sidecar_loop_lag_seconds", "How late the loop woke, asked every five seconds.")
    agent.loop_lag.add_to(lag)
    yield lag
    yield gauge("sidecar_audit_mode", "1 if intentions are audited, not enforced.").add(
        control.settings.audit
    )
    yield from _headline(agent)
    policy = control.snapshot.policy.value
    too_old = gauge("sidecar_intentions_too_old", "1 if intentions are older than intentions_max_age.")
    yield too_old.add(policy is not None and control.intentions.freshness.too_old_since() is not None)
    yield from _replica(control.replica)
    unsupported = gauge("sidecar_intentions_unsupported", "Intentions not understood, which therefore deny.")
    yield unsupported.add(0 if policy is None else len(policy.intentions.unsupported))
    unknown = gauge(
        "sidecar_default_policy_unknown", "1 if Consul does not state the default policy, which then denies."
    )
    yield unknown.add(policy is not None and bool(policy.intentions.default_unknown))
    run = agent.last_run
    degraded = gauge("sidecar_degraded", "Values in force that are of the last run, not confirmed since.")
    yield degraded.add(0 if run is None else len(run.values()))
    age = gauge("sidecar_state_age_seconds", "Seconds since Consul confirmed what is of the last run.")
    yield age.add(0.0 if run is None else run.age)
    yield gauge("sidecar_deny_list_entries", "Entries of the deny list.").add(len(control.deny_file.list))
    unusable = gauge("sidecar_deny_list_unusable", "1 if the deny file cannot be read any more.")
    yield unusable.add(bool(control.deny_file.complaint))
    no_token = gauge("sidecar_token_unusable", "1 if the token file holds no token.")
    yield no_token.add(bool(control.token.complaint))
    yield counter("sidecar_log_lines_lost_total", "Log lines lost: stderr was slow or closed.").add(
        agent.log.lost
    )


def _headline(agent: Agent) -> Iterator[Family]:
    silent = gauge("sidecar_consul_silent_seconds", "How long Consul has not answered; 0 while it does.")
    yield silent.add(facts(agent).silent or 0)
    left_out = gauge("sidecar_upstreams_unserved", "Upstreams of the registration that are not served.")
    yield left_out.add(len(unserved(agent)))


def _replica(replica: Replica | None) -> Iterator[Family]:
    age = gauge("sidecar_replica_age_seconds", "Seconds since the primary said what our datacenter says.")
    old = gauge("sidecar_replica_old", "1 if that is over replica_warn.")
    if replica is not None:
        for name, part in replica.parts.items():
            if part.age is not None:
                age.add(part.age, of=name)
                old.add(part.age > replica.warn_seconds, of=name)
    yield from (age, old)


def _watches(agent: Agent) -> Iterator[Family]:
    age = gauge("sidecar_watch_age_seconds", "Seconds since the last good answer to a watch.")
    changes = counter("sidecar_watch_changes_total", "Values a watch has published.")
    failing = gauge("sidecar_watch_failing", "Failures of a watch in a row; 0 if its last answer was good.")
    failures = counter("sidecar_watch_failures_total", "Failures of a watch, by reason.")
    filtered = gauge("sidecar_watch_filtered", "1 if ACLs remove entries from a watch's answers.")
    # A query polled at two intervals is two watches of one name; a page may have each sample once.
    for status in {status.name: status for status in agent.control.statuses()}.values():
        if status.age is not None:
            age.add(status.age, watch=status.name)
        changes.add(status.changes, watch=status.name)
        failing.add(status.failures_in_row, watch=status.name)
        filtered.add(status.filtered, watch=status.name)
        for reason, count in sorted(status.failures.items()):
            failures.add(count, watch=status.name, reason=reason)
    yield from (age, changes, failing, failures, filtered)
