"""Compares old upstreams with new ones, by bind; unchanged ones are left alone.

Apply `close` before `open`: an upstream that moves from one address to all addresses needs the port freed
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upstreams.spec import Upstream, first_of_each_bind


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do. `retarget` holds the new upstreams whose listener stays while its destination changes."""

    close: tuple[Upstream, ...]
    open: tuple[Upstream, ...]
    retarget: tuple[Upstream, ...]
    keep: tuple[Upstream, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.close or self.open or self.retarget)


def plan(old: Sequence[Upstream], new: Sequence[Upstream]) -> Plan:
    """Compare by bind. Raises ValueError if two new upstreams share one (parsers exclude that)."""
    late = first_of_each_bind(new)[1]
    if late:
        raise ValueError(f"two upstreams on one bind: {late[0]}")
    had = {upstream.bind: upstream for upstream in old}
    wanted = {upstream.bind: upstream for upstream in new}
    kept = [upstream for upstream in new if upstream.bind in had]
    return Plan(
        close=tuple(upstream for upstream in old if upstream.bind not in wanted),
        open=tuple(upstream for upstream in new if upstream.bind not in had),
        retarget=tuple(upstream for upstream in kept if had[upstream.bind] != upstream),
        keep=tuple(upstream for upstream in kept if had[upstream.bind] == upstream),
    )
