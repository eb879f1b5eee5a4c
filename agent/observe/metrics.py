"""`/metrics`: read off both planes at the moment of the scrape. Labels are the named reasons.

Nothing is counted here: what has a number has it in the ledger, in a watch's status or in an admission, once.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import trio

from agent import VERSION
from agent.base.prometheus import Family, counter, gauge
from agent.control import credentials_report
from agent.observe.agent import Agent
from agent.observe.readiness import missing
from agent.proxy.report import resident_bytes


async def families(agent: Agent) -> list[Family]:
    """Every metric as it is now."""
    report = await agent.data.report(rows=False)
    return [*control_plane(agent), *report.metrics]


def control_plane(agent: Agent) -> Iterator[Family]:
    """The process itself, and what it knows."""
    yield from _process(agent)
    yield from credentials_report.families(agent.control)
    yield from _watches(agent)


def open_files() -> int:
    """How many descriptors are open."""
    with os.scandir("/proc/self/fd") as entries:
        return sum(1 for _ in entries)


def _process(agent: Agent) -> Iterator[Family]:
    control = agent.control
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("sidecar_info", "The version; always 1.").add(1, version=VERSION)
    yield gauge("sidecar_ready", "Whether the agent can serve.").add(not missing(agent))
    yield gauge("sidecar_start_time_seconds", "When it started.").add(agent.started.timestamp())
    yield gauge("process_resident_memory_bytes", "Resident memory.").add(resident_bytes())
    yield gauge("process_open_fds", "Open files.").add(open_files())
    yield gauge("process_max_fds", "The limit of open files.").add(limit)
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield gauge("sidecar_tasks", "Tasks of trio's, its own among them.").add(tasks)
    yield gauge("sidecar_audit_mode", "Whether intentions are only audited.").add(control.settings.audit)
    intentions = control.snapshot.intentions.value
    too_old = gauge("sidecar_intentions_too_old", "Whether intentions are older than intentions_max_age.")
    yield too_old.add(intentions is not None and intentions.too_old)
    unsupported = gauge("sidecar_intentions_unsupported", "Intentions that deny as they are not understood.")
    yield unsupported.add(0 if intentions is None else len(intentions.unsupported))
    unknown = gauge(
        "sidecar_default_policy_unknown", "Whether Consul does not say what it lets in by default."
    )
    yield unknown.add(intentions is not None and bool(intentions.default_unknown))
    yield gauge("sidecar_deny_list_entries", "Entries of the deny list.").add(len(control.deny_file.list))
    unusable = gauge("sidecar_deny_list_unusable", "Whether the deny file cannot be read any more.")
    yield unusable.add(bool(control.deny_file.complaint))
    no_token = gauge("sidecar_token_unusable", "Whether the token file holds no token.")
    yield no_token.add(bool(control.token.complaint))
    yield counter("sidecar_log_lines_lost_total", "Log lines nobody could be told.").add(agent.log.lost)


def _watches(agent: Agent) -> Iterator[Family]:
    age = gauge("sidecar_watch_age_seconds", "Since the last good answer.")
    changes = counter("sidecar_watch_changes_total", "Values published.")
    failing = gauge("sidecar_watch_failing", "Failures in a row.")
    failures = counter("sidecar_watch_failures_total", "Failures by reason.")
    filtered = gauge("sidecar_watch_filtered", "Whether answers lack what the token may not see.")
    # One query polled at two paces is two watches of one name; a page must not have a sample twice.
    for status in {status.name: status for status in agent.control.statuses()}.values():
        if status.age is not None:
            age.add(status.age, watch=status.name)
        changes.add(status.changes, watch=status.name)
        failing.add(status.failures_in_row, watch=status.name)
        filtered.add(status.filtered, watch=status.name)
        for reason, count in sorted(status.failures.items()):
            failures.add(count, watch=status.name, reason=reason)
    yield from (age, changes, failing, failures, filtered)
