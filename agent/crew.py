"""The workers of an agent as its other parts know them. An agent that serves by itself has no crew."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from agent.base.prometheus import Family
from agent.config.options import LogLevel
from agent.consul.watch import WatchStatus
from agent.net.listeners import Listeners
from agent.outbound.upstream_state import Source
from upstreams.endpoints import Endpoint
from upstreams.reach import Dialling, Doubt
from upstreams.spec import Destination, Lookup, Upstream


class Crew(Protocol):
    """Several processes that serve connections for this one."""

    def start(self, nursery: trio.Nursery, /) -> None:
        """Begin them; they are told whatever there is to know as it becomes known."""

    def listeners(self, listeners: trio.Nursery, connections: trio.Nursery, /) -> Listeners:
        """Those that are bound here and accepted from there."""

    async def ready(self) -> None:
        """Until every one of them has carried out what was said so far."""

    async def empty(self) -> None:
        """Until none of them has a connection."""

    async def finish(self) -> int:
        """End them; how many connections had to be cut."""

    def take_level(self, level: LogLevel, /) -> None:
        """Another log level for them too."""

    def live(self) -> int:
        """Their connections, as of the last reports."""

    def missing(self) -> list[str]:
        """What keeps them from serving."""

    def complaints(self) -> list[str]:
        """What an operator must not overlook."""

    async def families(self) -> list[Family]:
        """Their metrics, added up."""

    async def laid_into(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document of `/status` with what they say."""

    async def share(self, lookup: Lookup, poll_interval: float | None, source: Source, /) -> None:
        """Keep them informed of those endpoints, until cancelled."""

    def watch_changed(self, status: WatchStatus, /) -> None:
        """A watch fails, or is answered again."""


class Unheard:
    """agent.outbound.upstream_state.TargetEvents where nobody is served: whoever serves says what happens."""

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        """Said by a worker."""

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        """Said by a worker."""

    def doubted(self, upstream: Upstream, endpoint: Endpoint, dialling: Dialling, found: Doubt, /) -> None:
        """Said by a worker."""
