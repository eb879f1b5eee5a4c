"""The phases of an agent's life."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Whether the agent is starting, serves, or drains."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
