"""One agent as the observing modules see it: its two planes, its log, its admin endpoint's addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import trio

from agent.base.address import Address
from agent.base.histogram import Histogram
from agent.control.plane import ControlPlane
from agent.log.events import Journal
from agent.proxy.dataplane import DataPlane


class LastRun(Protocol):
    """What is in force of the last run's state."""

    @property
    def complaint(self) -> str: ...
    @property
    def age(self) -> float: ...
    def values(self) -> list[str]: ...


@dataclass(slots=True, kw_only=True)
class Agent:
    """What readiness, status, metrics and the admin endpoint read from."""

    control: ControlPlane
    data: DataPlane
    log: Journal
    started: datetime
    began: float | None = None  # `started` by trio's clock, once trio runs
    admin_addresses: list[str] = field(default_factory=list)
    admin_problems: dict[Address, str] = field(default_factory=dict)  # addresses that cannot be had now
    complaint: str = ""  # about the settings as they were read last

    last_run: LastRun | None = None
    loop_lag: Histogram = field(default_factory=Histogram)  # how late trio's loop woke who slept

    @property
    def complaints(self) -> list[str]:
        """What an operator must not overlook though the agent serves."""
        resumed = "" if self.last_run is None else self.last_run.complaint
        return [
            text for text in (resumed, self.complaint, self._clock, *self.admin_problems.values()) if text
        ]

    @property
    def _clock(self) -> str:
        skew = self.control.skew
        if skew.seconds is None or not skew.notable:
            return ""
        return (
            f"Consul's clock is {abs(skew.seconds):.0f} s {'ahead of' if skew.seconds > 0 else 'behind'} ours"
        )

    @property
    def uptime(self) -> float:
        """Seconds since the agent began to run."""
        return 0.0 if self.began is None else trio.current_time() - self.began
