"""Brings in what carries tunnels once a listener or an upstream is to have some, and not before.

By default nothing is tunnelled, and those modules cost a process 1.1 MB and 20 ms of its start. This is the
one place that imports them, by name; what calls them knows protocols (agent.inbound.verdict and
agent.outbound.outbound).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from agent.base.containment import FaultEvents
from agent.base.latest import Latest
from agent.config.registration import Registration
from agent.inbound.verdict import ServeTunnel
from agent.net.dial import Shun
from agent.outbound.listeners import ServeAtOnce, never
from agent.outbound.outbound import Outbound, TunnelSource
from upstreams.spec import TunnelMode


class OwnTunnels(TunnelSource, Protocol):
    """The tunnels that we have made (agent.outbound.tunnels.Tunnels)."""

    @property
    def any(self) -> bool:
        """Whether there is a tunnel at all."""

    async def run(self) -> None:
        """Keep the tunnels until cancelled."""


@dataclass(slots=True, kw_only=True)
class Tunnelling:
    """Whether this process takes tunnels and makes some. `mode` is that of the agent, for both."""

    mode: TunnelMode
    registrations: Latest[Registration]
    outbound: Callable[[], Outbound]  # what connections of our app share now
    faults: FaultEvents
    shun: Shun
    serve: ServeTunnel | None = field(init=False)  # None: callers may open no tunnels
    own: OwnTunnels | None = field(init=False, default=None)  # None: no upstream is to have any
    at_once: ServeAtOnce = field(init=False, default=never)  # serves a connection of our app without a task

    def __post_init__(self) -> None:
        takes = self.mode is TunnelMode.AUTO
        self.serve = import_module("agent.inbound.tunnel").serve_tunnel if takes else None

    async def run(self) -> None:
        """Make tunnels as soon as an upstream is to have some, and keep them until cancelled."""
        version = 0
        while True:
            registration, version = await self.registrations.newer(version)
            if self._wanted(registration):
                break
        self.own = self._make()
        await self.own.run()

    def _wanted(self, registration: Registration) -> bool:
        modes = {upstream.tunnel or self.mode for upstream in registration.upstreams}
        return TunnelMode.AUTO in modes

    def _make(self) -> OwnTunnels:
        make: Callable[..., OwnTunnels] = import_module("agent.outbound.tunnels").own_tunnels
        shared = self.outbound()
        made = make(shared, self.faults, self.shun)
        at_once = import_module("agent.outbound.at_once")
        self.at_once = at_once.AtOnce(shared, made, shared.ledger, self.faults).serve
        return made
