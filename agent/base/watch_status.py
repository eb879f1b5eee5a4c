"""The state of a watch: its answers, its failures, and the age of the last good answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import trio


class WatchFailure(Protocol):
    """Why a question to Consul failed; `str` gives the text for a person."""

    @property
    def reason(self) -> str:
        """The named reason, as in metrics and log."""


@dataclass(frozen=True, slots=True)
class ReportedFailure:
    """A failure that another process has met and reported as text."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(slots=True, kw_only=True)
class WatchStatus:
    """The state of one watch; the watch loop writes it, status and metrics read it."""

    name: str
    answers: int = 0
    changes: int = 0
    answered_at: datetime | None = None
    _answered: float = 0.0  # `answered_at` by trio's clock, which is never set back
    failing: WatchFailure | None = None  # the failure of the last question; None when it was answered well
    failing_since: datetime | None = None
    _failing: float = 0.0
    failures_in_row: int = 0
    reason_changed: bool = False  # the last failure has another reason than the one before it
    failures: Counter[str] = field(default_factory=Counter)  # by reason, since the start
    filtered: bool = False  # Consul left out of the last good answer what the token may not see

    def succeeded(self, at: datetime) -> None:
        """Note a usable answer."""
        self.answers += 1
        self.answered_at = at
        self._answered = trio.current_time()
        self.failing = self.failing_since = None
        self.failures_in_row = 0

    def failed(self, failure: WatchFailure, at: datetime) -> None:
        """Note a question without an answer, or with an unusable one."""
        self.reason_changed = self.failing is not None and self.failing.reason != failure.reason
        self.failures[str(failure.reason)] += 1
        self.failures_in_row += 1
        if self.failing is None:
            self.failing_since, self._failing = at, trio.current_time()
        self.failing = failure

    @property
    def age(self) -> float | None:
        """Seconds since the last good answer; None before the first one."""
        return None if self.answered_at is None else round(trio.current_time() - self._answered, 3)

    @property
    def failing_seconds(self) -> float:
        """Seconds since the first failure in the present row; 0 while the last question was answered well."""
        return 0.0 if self.failing is None else trio.current_time() - self._failing
