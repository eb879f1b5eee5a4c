"""The wall clock; every other module gets it as an argument."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The wall clock; the only place the agent gets it from."""
    return datetime.now(UTC)
