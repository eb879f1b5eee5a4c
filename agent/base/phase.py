"""Where in its life an agent is."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where in its life the agent is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
