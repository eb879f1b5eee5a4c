"""The settings read anew while the agent runs: which changes are carried out, and which wait for a restart.

A restart is needed for whatever decides how Consul, the operator or the workers are reached, and for what a
listener or a connection has been given for its life.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.config.options import OPTIONS
from agent.config.settings import Settings

LIVE = frozenset(
    {"listen", "service_addr", "upstream", "narrow", "audit", "strict", "log_level"}
    | {"drain_seconds", "start_timeout"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The settings in force after a reload; the names of those that changed, and of those that wait."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reload(before: Settings, read: Settings) -> Reload:
    """Return what of `read` is carried out while the agent runs by `before`."""
    names = [option.name for option in OPTIONS if getattr(before, option.name) != getattr(read, option.name)]
    changed = tuple(name for name in names if name in LIVE)
    values = {name: getattr(read, name) for name in changed}
    origins = {**before.origins, **{name: read.origins[name] for name in LIVE}}
    return Reload(
        settings=replace(before, **values, origins=origins),
        changed=changed,
        waiting=tuple(name for name in names if name not in LIVE),
    )
