"""The wall clock, and the type of what is handed in for it: no other module asks what time it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]


def now() -> datetime:
    """The wall clock; the only place the agent gets it from."""
    return datetime.now(UTC)
