"""What a running agent is made of: filled in as it starts, read by readiness, status and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

import trio

from agent.base.latest import Latest
from agent.base.phase import Phase
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.connections.ledger import Ledger
from agent.consul.api import Consul, RawList
from agent.consul.token import TokenSource
from agent.consul.watch import Watch, WatchStatus
from agent.control.clock_skew import ClockSkew
from agent.control.credentials import Rotation
from agent.control.default_policy import DefaultPolicy
from agent.control.deny_file import DenyFile
from agent.control.endpoints import EndpointFeeds
from agent.crew import Crew
from agent.net.listeners import Listeners, Opening
from agent.observe.events import Journal
from agent.outbound.listeners import UpstreamListeners
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import Outgoing
from agent.relay.relay import Relay
from certs.contexts import Contexts
from upstreams.endpoints import EndpointKey

PUBLIC = "public"  # the key of the public listener

Clock = Callable[[], datetime]


@dataclass(slots=True, kw_only=True)
class Parts:
    """One agent. What is None has not come to be yet."""

    settings: Settings
    clock: Clock
    rng: Random
    deny_file: DenyFile = field(init=False)
    journal: Journal
    consul: Consul
    token: TokenSource
    ledger: Ledger
    loads: Counter[EndpointKey] = field(default_factory=Counter)
    started: datetime
    began: float | None = None  # the same by trio's clock, once that runs
    placement: Latest[Registration] = field(default_factory=Latest)
    contexts: Latest[Contexts] = field(default_factory=Latest)
    intentions: Latest[Intentions] = field(default_factory=Latest)
    outgoing: Latest[Outgoing] = field(default_factory=Latest)
    skew: ClockSkew = field(init=False)
    phase: Phase = Phase.STARTING
    start: WatchStatus = field(default_factory=lambda: WatchStatus(name="start"))
    registration_watch: Watch[dict[str, object], Registration] | None = None
    intentions_watch: Watch[RawList | None, Intentions] | None = None
    default_policy: DefaultPolicy | None = None
    outgoing_watch: Watch[RawList | None, Outgoing] | None = None
    rotation: Rotation | None = None
    relay: Relay | None = None
    feeds: EndpointFeeds | None = None
    listeners: Listeners | None = None
    upstreams: UpstreamListeners | None = None
    crew: Crew | None = None
    admin_addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deny_file = DenyFile(self.settings.deny_file)
        self.skew = ClockSkew(self.clock, self.journal.clock_skewed)
        self.consul.on_date = self.skew.take
        self.token.on_complaint = self.journal.token_complaint

    @property
    def public(self) -> Opening | None:
        """The public listener."""
        return None if self.listeners is None else self.listeners.get(PUBLIC)

    @property
    def uptime(self) -> float:
        """Seconds since the agent began to run."""
        return 0.0 if self.began is None else trio.current_time() - self.began

    def own_datacenter(self) -> str:
        """Ours: as the leaf says, until there is one as the registration says."""
        contexts, placed = self.contexts.value, self.placement.value
        if contexts is not None:
            return contexts.credentials.leaf.id.datacenter
        return (placed.datacenter if placed is not None else None) or ""

    def watches(self) -> Iterator[WatchStatus]:
        """How every watch fares."""
        if self.registration_watch is not None:
            yield self.registration_watch.status
        if self.rotation is not None:
            yield self.rotation.roots_watch.status
            yield self.rotation.leaf_watch.status
        if self.intentions_watch is not None:
            yield self.intentions_watch.status
        if self.default_policy is not None:
            yield self.default_policy.watch.status
        if self.outgoing_watch is not None:
            yield self.outgoing_watch.status
        if self.feeds is not None:
            yield from self.feeds.statuses()

    def ask_again(self) -> None:
        """Whatever waits for its next try tries now: the token has changed."""
        if self.registration_watch is not None:
            self.registration_watch.kick()
        if self.rotation is not None:
            self.rotation.roots_watch.kick()
            self.rotation.leaf_watch.kick()
        if self.intentions_watch is not None:
            self.intentions_watch.kick()
        if self.default_policy is not None:
            self.default_policy.watch.kick()
        if self.outgoing_watch is not None:
            self.outgoing_watch.kick()
        if self.feeds is not None:
            self.feeds.refresh_all()
