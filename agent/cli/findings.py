"""What `sidecar doctor` has found, one line each, and the exit code that follows (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.base.exits import ExitCode


class State(StrEnum):
    """How one thing stands."""

    OK = "ok"
    WARN = "warn"  # it serves, and an operator should know
    FAIL = "fail"  # it does not serve as it is
    SKIP = "skip"  # not looked at, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line. `code` is what a failure alone would end with; `remedy` what to do, in words."""

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
        """For JSON."""
        row = {"state": self.state.value, "subject": self.subject, "found": self.found}
        return {**row, "remedy": self.remedy} if self.remedy else row


def ok(subject: str, found: str) -> Finding:
    """It holds."""
    return Finding(state=State.OK, subject=subject, found=found)


def skip(subject: str, found: str) -> Finding:
    """It was not looked at."""
    return Finding(state=State.SKIP, subject=subject, found=found)


def warn(subject: str, found: str, remedy: str) -> Finding:
    """It serves, and should be looked at."""
    return Finding(state=State.WARN, subject=subject, found=found, remedy=remedy)


def fail(subject: str, found: str, remedy: str, code: ExitCode = ExitCode.CONFIGURATION) -> Finding:
    """It does not serve."""
    return Finding(state=State.FAIL, subject=subject, found=found, remedy=remedy, code=code)


def eased(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Failures among several of which one is enough: warnings if any of them serves."""
    if not any(finding.state is State.OK for finding in findings):
        return findings
    return [
        warn(finding.subject, finding.found, finding.remedy) if finding.state is State.FAIL else finding
        for finding in findings
    ]


def worst(findings: Iterable[Finding]) -> ExitCode:
    """Of several failures the one an operator has to mend himself: 78 before 77 before 69."""
    codes = [finding.code for finding in findings if finding.state is State.FAIL]
    return max(codes, default=ExitCode.CLEAN)


def page(findings: Sequence[Finding]) -> str:
    """Every line, and a last one that counts them."""
    counts = ((state, sum(finding.state is state for finding in findings)) for state in State)
    return "\n".join([*map(str, findings), ", ".join(f"{count} {state.value}" for state, count in counts)])
