"""The findings of `sidecar doctor`, one line each, and the exit code that follows. No effects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from agent.base.exits import ExitCode
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.refusal import Refusal, refusal

# what stands first hides what stands after it: without Consul no upstream is known
_FIRST = (
    ExitCode.CONFIGURATION,
    ExitCode.PERMISSION,
    ExitCode.UNAVAILABLE,
    ExitCode.APP_DOWN,
    ExitCode.FAR_SIDE,
)


# Subjects, or their beginnings, in order: a failure of one shows in those after it.
_CAUSES = (
    ("settings", "open files", "deny file"),
    ("token", "consul", "clock"),
    ("registration",),
    ("roots", "leaf", "intentions", "replica"),
    ("listeners", "public", "app"),
    ("instance",),
    ("upstream",),
    ("running agent",),
    ("sandbox",),
)
_EXPLAINS = ("clock", "consul connections")  # subjects whose warnings may cause failures after them


class State(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARN = "warn"  # the sidecar serves, and the operator should know
    FAIL = "fail"  # the sidecar does not serve like this
    SKIP = "skip"  # not checked, with the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line. `code`: the exit code of a failure alone; `remedy`: what to do, in words."""

    state: State
    subject: str
    found: str
    remedy: str = ""
    code: ExitCode = ExitCode.CLEAN

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.state.value:4}  {self.subject}: {self.found}{remedy}"

    @property
    def row(self) -> dict[str, str]:
        """The finding as a JSON object."""
        row = {"state": self.state.value, "subject": self.subject, "found": self.found}
        return {**row, "remedy": self.remedy} if self.remedy else row


def ok(subject: str, found: str) -> Finding:
    """Return a finding: the check has passed."""
    return Finding(state=State.OK, subject=subject, found=found)


def skip(subject: str, found: str) -> Finding:
    """Return a finding: the check was not made."""
    return Finding(state=State.SKIP, subject=subject, found=found)


def warn(subject: str, found: str, remedy: str) -> Finding:
    """Return a finding: the sidecar serves, and the operator should look."""
    return Finding(state=State.WARN, subject=subject, found=found, remedy=remedy)


def fail(subject: str, found: str, remedy: str, code: ExitCode = ExitCode.CONFIGURATION) -> Finding:
    """Return a finding: the sidecar does not serve like this."""
    return Finding(state=State.FAIL, subject=subject, found=found, remedy=remedy, code=code)


def eased(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return the findings with failures as warnings, if at least one candidate serves."""
    if not any(finding.state is State.OK for finding in findings):
        return findings
    return [
        warn(finding.subject, finding.found, finding.remedy) if finding.state is State.FAIL else finding
        for finding in findings
    ]


def worst(findings: Iterable[Finding]) -> ExitCode:
    """Return the exit code of the failure that most needs the operator: 78, 77, 69, 75, 68."""
    codes = {finding.code for finding in findings if finding.state is State.FAIL}
    return next((code for code in _FIRST if code in codes), max(codes, default=ExitCode.CLEAN))


def page(findings: Sequence[Finding]) -> str:
    """Return the cause of what is wrong if anything is, every line, and a last one with the counts."""
    findings = ordered(findings)
    counts = ((state, sum(finding.state is state for finding in findings)) for state in State)
    first = cause(findings)
    head = [] if first is None else [f"cause {first.subject}: {first.found}", f"      {first.remedy}", ""]
    last = ", ".join(f"{count} {state.value}" for state, count in counts)
    return "\n".join([*head, *map(str, findings), last])


def document(findings: Sequence[Finding]) -> str:
    """Return the same as JSON: the exit code, the cause or null, and every finding."""
    first, rows = cause(findings), [finding.row for finding in ordered(findings)]
    told = {"exit": int(worst(findings)), "cause": None if first is None else first.row, "findings": rows}
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


def ordered(findings: Iterable[Finding]) -> Sequence[Finding]:
    """Return the findings with causes before symptoms."""
    return sorted(findings, key=_depth)


def cause(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that most likely causes the others; without a failure the first warning."""
    bad = [finding for finding in ordered(findings) if finding.state in (State.FAIL, State.WARN)]
    if not any(finding.state is State.FAIL for finding in bad):
        return next(iter(bad), None)
    return next(one for one in bad if one.state is State.FAIL or one.subject in _EXPLAINS)


def _depth(finding: Finding) -> int:
    """Return how many subjects a failure may be a symptom of."""
    return next(
        (depth for depth, subjects in enumerate(_CAUSES) if finding.subject.startswith(subjects)),
        len(_CAUSES),
    )


def refused(subject: str, error: ConsulError, rule: str, *, given: bool = True) -> Finding:
    """Return the finding for a failed question. `rule`: what it needs of ACLs; `given`: a token was sent."""
    if error.reason is ConsulReason.DENIED:
        found = _REFUSALS.get(refusal(error, given=given), _INSUFFICIENT).format(rule=rule)
        return fail(subject, str(error), found, ExitCode.PERMISSION)
    if "Connect must be enabled" in error.text:
        return fail(subject, str(error), "set `connect { enabled = true }` on the Consul servers and agents")
    if error.reason is ConsulReason.RATE_LIMITED:
        remedy = "ask later; 200 connections of one address are Consul's limit: lower consul_connections"
        return fail(subject, str(error), remedy, ExitCode.UNAVAILABLE)
    for text, remedy in _NO_SUCH.items():
        if text in error.text:
            return fail(subject, str(error), remedy)
    if error.reason is ConsulReason.UNAVAILABLE:
        return fail(
            subject,
            str(error),
            "ask again; if it stays so, look at the Consul agent's log",
            ExitCode.UNAVAILABLE,
        )
    return fail(subject, str(error), "check that -http-addr is a Consul agent of 1.8 or later")


_NO_SUCH = {
    "No path to datacenter": "correct the datacenter in the upstream, or join that one (consul members -wan)",
    "Query not found": "create that prepared query, or correct the name in the upstream",
}
_GIVE = "give a valid one with -token-file or CONSUL_HTTP_TOKEN"
_INSUFFICIENT = "the token needs {rule}; a service-identity token has it"
_REFUSALS: dict[Refusal | None, str] = {
    Refusal.ABSENT: f"no token is given, and the anonymous one lacks {{rule}}: {_GIVE}",
    Refusal.UNKNOWN: (
        "Consul does not know this token: it was deleted, has expired, or has not reached this "
        f"datacenter yet; {_GIVE}"
    ),
}
