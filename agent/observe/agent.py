"""One agent as observers see it: its two planes, its log, and where its admin endpoint is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import trio

from agent.control.plane import ControlPlane
from agent.observe.events import Journal
from agent.proxy.dataplane import DataPlane


@dataclass(slots=True, kw_only=True)
class Agent:
    """What readiness, status, metrics and the admin endpoint read."""

    control: ControlPlane
    data: DataPlane
    log: Journal
    started: datetime
    began: float | None = None  # the same by trio's clock, once that runs
    admin_addresses: list[str] = field(default_factory=list)

    @property
    def uptime(self) -> float:
        """Seconds since the agent began to run."""
        return 0.0 if self.began is None else trio.current_time() - self.began
