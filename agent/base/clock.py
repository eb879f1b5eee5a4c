"""The wall clock and its type; every other module receives the clock as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]


def now() -> datetime:
    """Return the wall time in UTC. The agent reads the wall clock here and nowhere else."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds by a clock that is never set and that every process of this machine shares."""
    return time.monotonic()
