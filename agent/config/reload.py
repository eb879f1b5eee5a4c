"""Decides which changes of the settings apply while the agent runs, and which need a restart.

Settings that decide how Consul, the operator or the workers are reached need a restart, and so do those that
a listener or a connection keeps for its life.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.config.options import OPTIONS
from agent.config.settings import Settings

LIVE = frozenset(
    {"listen", "service_addr", "upstream", "narrow", "audit", "strict", "log_level"}
    | {"drain_seconds", "leave_seconds", "start_timeout"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The settings after a reload; the names of changed ones, and of those that need a restart."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reload(before: Settings, read: Settings) -> Reload:
    """Return the settings `before` with the changes in `read` that apply while the agent runs."""
    names = [option.name for option in OPTIONS if getattr(before, option.name) != getattr(read, option.name)]
    changed = tuple(name for name in names if name in LIVE)
    values = {name: getattr(read, name) for name in changed}
    origins = {**before.origins, **{name: read.origins[name] for name in LIVE}}
    return Reload(
        settings=replace(before, **values, origins=origins),
        changed=changed,
        waiting=tuple(name for name in names if name not in LIVE),
    )
