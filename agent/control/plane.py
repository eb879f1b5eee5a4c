"""The control plane: asks the local Consul agent, proves the answers, and publishes them in the snapshot.

No refusal by Consul ends it: the watches go on asking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Protocol

import trio

from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.containment import Kept, Where, contained
from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.base.watch_status import WatchStatus
from agent.config.collisions import Known, unknown_names
from agent.config.effective import from_settings, listening_at, overridden, servable
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.api import Consul
from agent.consul.budget import Budget, Rank, Urgency
from agent.consul.room import Room, counting
from agent.consul.token import TokenSource
from agent.consul.watch import Watch
from agent.control.bootstrap import Start
from agent.control.clock_skew import ClockSkew
from agent.control.credentials import CredentialsEvents, CredentialsKeeper
from agent.control.deny_file import DenyFile
from agent.control.endpoints import EndpointWatches, WatchEvents
from agent.control.own_addresses import known_now, look_up
from agent.control.self_registration import Deregistration
from agent.control.watches import intentions_watch, registration_watch, source_intentions_watch
from agent.intentions.keeper import IntentionEvents, IntentionsKeeper
from agent.intentions.replica import Replica, ReplicaEvents
from agent.policy.source_intentions import SourceIntentions
from agent.snapshot import Snapshot
from certs.bundle import TrustBundle

# of watches in /status
_ORDER = ("registration", "roots", "leaf", "intentions", "default policy", "outgoing")

_RANKS = {
    "intentions": Rank.INTENTIONS,
    "roots": Rank.ROOTS,
    "leaf": Rank.LEAF,
    "registration": Rank.REGISTRATION,
    "outgoing": Rank.SOURCE_INTENTIONS,
}


class ControlEvents(CredentialsEvents, IntentionEvents, ReplicaEvents, WatchEvents, Protocol):
    """The events of the control plane; must not block."""

    def registration_changed(self, proxy_id: str, problems: Sequence[str]) -> None: ...
    def registration_gone(self, proxy_id: str) -> None: ...
    def token_complaint(self, complaint: str) -> None: ...
    def outgoing_changed(self, rules: int) -> None: ...
    def token_changed(self) -> None: ...
    def clock_skewed(self, seconds: float, notable: bool) -> None: ...
    def deny_list_changed(self, entries: int) -> None: ...
    def deny_list_unusable(self, detail: str) -> None: ...


class ControlPlane:
    """The only writer of the snapshot in the process that talks to Consul."""

    def __init__(
        self,
        *,
        settings: Settings,
        consul: Consul,
        token: TokenSource,
        events: ControlEvents,
        clock: Clock,
        rng: Random,
    ) -> None:
        self.settings = settings
        self.consul = consul
        self.token = token
        self.clock = clock
        self.rng = rng
        self.phase = Phase.STARTING
        self.snapshot = Snapshot()
        self.deny_file = DenyFile(settings.deny_file, self.snapshot.deny_list)
        self.skew = ClockSkew(clock, events.clock_skewed)
        self.start_status = WatchStatus(name="start")
        self.admin_at: Sequence[Address] = settings.admin_bind  # as bound, once it is bound
        self.public_at: Address | None = None  # the address of a public socket from systemd
        self._taken = 0  # the number of registrations so far
        self.registered: Registration | None = None  # the newest registration as Consul answered it
        self.watches: dict[str, Watch[Any, Any]] = {}  # of our own service, by name, in order of their start
        self.credentials: CredentialsKeeper | None = None  # once our service is known
        self.budget = Budget(settings.consul_connections, settings.consul_connections_most)
        self.room = Room(self.budget, consul.keep, counting(settings.http_addr), rng)
        self.replica: Replica | None = None  # once our service is known
        self.endpoints = EndpointWatches(
            consul,
            snapshot=self.snapshot,
            clock=clock,
            rng=rng,
            events=events,
            budget=self.budget,
            vanished_grace=settings.vanished_grace,
        )
        self.intentions = IntentionsKeeper(
            settings=settings,
            consul=consul,
            snapshot=self.snapshot,
            events=events,
            clock=clock,
            begin=self._begin,
        )
        self._events = events
        self._nursery: trio.Nursery
        self._kept: Kept
        self._listen(events)

    def _listen(self, events: ControlEvents) -> None:
        """Have the client and the token tell us what they learn."""
        self.consul.on_date = self.skew.take
        self.consul.on_refused = self.room.refused
        self.consul.turn = partial(self.budget.turn, Urgency.OWN)
        self.token.on_change = self.token_changed
        self.token.on_complaint = events.token_complaint

    def attach(self, nursery: trio.Nursery) -> None:
        """Run the watches in `nursery` from now on."""
        self._nursery = nursery
        self._kept = Kept(nursery, self._events)
        self.endpoints.start(nursery)

    def start(self, nursery: trio.Nursery) -> None:
        """Attach, and watch the deny file; `watch` starts the watches of our own service."""
        self.attach(nursery)
        callbacks = (self._events.deny_list_changed, self._events.deny_list_unusable)
        self._kept.begin(Where.TASK, "deny file", self.deny_file.follow, *callbacks)
        self._kept.begin(Where.TASK, "connections to Consul", self.room.follow)

    async def identify(self) -> Registration:
        """Find out which proxy we are, however long that takes; publish and return the registration."""
        if self.settings.identity is IdentityKind.SERVICE:
            self.take(from_settings(self.settings))
        else:
            start = Start(
                consul=self.consul,
                settings=self.settings,
                rng=self.rng,
                on_failure=self._events.watch_failed,
                status=self.start_status,
                clock=self.clock,
            )
            self.take(await start.registration())
        return await self.snapshot.registration.first()

    def watch(self, registration: Registration) -> None:
        """Start the watches of our own service."""
        self.watch_credentials(registration)
        self._kept.begin(Where.TASK, "source intentions", self.watch_source_intentions)
        self.replica = self._replica_of(registration.service)
        self._kept.begin(Where.TASK, "age of the replica", self.replica.follow, self.snapshot.credentials)
        if self.settings.identity is not IdentityKind.SERVICE:
            self.watch_registration(registration.proxy_id)

    def _replica_of(self, service: str) -> Replica:
        return Replica(
            consul=self.consul,
            service=service,
            datacenter=self.snapshot.own_datacenter,
            listed=lambda: self.intentions.listed,
            bundle=self._bundle,
            events=self._events,
            rng=self.rng,
            primary=self.settings.primary_datacenter or "",
            warn_seconds=self.settings.replica_warn,
        )

    def _bundle(self) -> TrustBundle:
        contexts = self.snapshot.credentials.value
        assert contexts is not None  # the replica is compared from the first credentials on
        return contexts.credentials.bundle

    def statuses(self) -> Iterator[WatchStatus]:
        """Yield the state of every watch."""
        yield from self.own_statuses()
        yield from self.endpoints.statuses()

    def own_statuses(self) -> Iterator[WatchStatus]:
        """Yield the state of every watch of our own service."""
        yield from (self.watches[name].status for name in _ORDER if name in self.watches)

    def status_of(self, name: str) -> WatchStatus | None:
        """Return the state of the watch of that name; None before it has started."""
        watch = self.watches.get(name)
        return None if watch is None else watch.status

    def take(self, registration: Registration) -> None:
        """Publish a registration with the settings applied to it. Raises Exit.

        This happens at once, unless a name must be looked up to know whether two listeners collide.
        """
        self._taken, self.registered = self._taken + 1, registration
        configured = overridden(registration, self.settings)
        addresses = listening_at(configured, self.admin_at)
        if unknown_names(addresses):
            later = (self._take_later, configured, addresses, self._taken)
            self._nursery.start_soon(contained, self._events, Where.TASK, "registration", *later)
        else:
            self._publish_registration(configured, known_now(addresses))

    def take_settings(self, settings: Settings) -> None:
        """Apply other settings: publish the registration and the policy again with them. Raises Exit."""
        self.settings = settings
        if self.registered is not None:
            self.take(from_settings(settings) if settings.service else self.registered)
        self.intentions.settings = settings
        self.intentions.publish()
        outgoing = self.snapshot.source_intentions
        if outgoing.value is not None:
            outgoing.publish(replace(outgoing.value, audit=settings.audit))

    async def _take_later(self, configured: Registration, addresses: Sequence[Address], number: int) -> None:
        known = await look_up(addresses)
        if number == self._taken:
            self._publish_registration(configured, known)

    def _publish_registration(self, configured: Registration, known: Known) -> None:
        effective = servable(configured, self.admin_at, known, self.public_at)
        before = self.snapshot.registration.value
        if before == effective:
            return
        if before is not None and before.service != effective.service:
            # Leaf, intentions and metrics belong to the service, so another service needs another agent.
            now = f"proxy {effective.proxy_id!r} now stands for {effective.service!r}, not {before.service!r}"
            raise Exit(ExitCode.FAILED, f"{now}; starting again takes it up")
        if effective.accepts_callers:
            self.watch_intentions(effective)  # until they are known, callers are refused by a named reason
        self.snapshot.registration.publish(effective)
        self._events.registration_changed(effective.proxy_id, list(map(str, effective.problems)))

    def watch_intentions(self, registration: Registration) -> None:
        """Watch the intentions for our service, once there is a public listener."""
        if "intentions" in self.watches:
            return
        watch = intentions_watch(self.consul, registration.service, self.intentions.take)
        self.intentions.follow(watch, self._kept)

    def _begin(self, watch: Watch[Any, Any], on_failure: Callable[[WatchStatus], None]) -> None:
        watch.on_failure, watch.on_recovery = on_failure, self._events.watch_recovered
        watch.on_filtered = self._events.watch_filtered
        self._share_connections(watch)
        self.watches[watch.name] = watch
        self._kept.begin(Where.WATCH, watch.name, watch.follow, self.clock, self.rng)

    def _share_connections(self, watch: Watch[Any, Any]) -> None:
        """Give a watch its place; one that only polls asks whenever it is its turn."""
        if watch.name in _RANKS:
            self.budget.place(_RANKS[watch.name], watch).join()

    def watch_registration(self, proxy_id: str) -> None:
        """Watch our registration."""
        watch = registration_watch(self.consul, proxy_id, self.take)
        effective, again = self.snapshot.registration, lambda: self.take_settings(self.settings)
        gone = Deregistration(effective, self._events, again)
        self._begin(watch, gone.failed)
        watch.on_recovery = gone.recovered

    def watch_credentials(self, registration: Registration) -> None:
        """Watch roots and leaf."""
        self.credentials = keeper = CredentialsKeeper(
            self.consul,
            service=registration.service,
            datacenter=registration.datacenter,
            contexts=self.snapshot.credentials,
            events=self._events,
            clock=self.clock,
            rng=self.rng,
        )
        for watch in (keeper.roots_watch, keeper.leaf_watch):
            watch.on_failure, watch.on_recovery = self._events.watch_failed, self._events.watch_recovered
            watch.on_filtered = self._events.watch_filtered
            self._share_connections(watch)
            self.watches[watch.name] = watch
        self._kept.begin(Where.TASK, "credentials", keeper.run)

    async def watch_source_intentions(self) -> None:
        """Watch the intentions with our service as source, once there is an upstream.

        Nothing depends on it.
        """
        version = 0
        if not self.settings.judge_outbound:
            return
        while True:
            registration, version = await self.snapshot.registration.newer(version)
            if registration.upstreams:
                break
        watch = source_intentions_watch(self.consul, registration.service, self._take_outgoing)
        self._begin(watch, self._events.watch_failed)

    # --- answers ---

    def _take_outgoing(self, outgoing: SourceIntentions) -> None:
        self.snapshot.source_intentions.publish(replace(outgoing, audit=self.settings.audit))
        self._events.outgoing_changed(len(outgoing.rules))

    def token_changed(self) -> None:
        """Note that the token file holds another token: retry at once whatever waits."""
        self._events.token_changed()
        self.ask_again()

    def ask_again(self) -> None:
        """Let every watch that pauses ask now."""
        for watch in self.watches.values():
            watch.kick()
        self.endpoints.refresh_all()
