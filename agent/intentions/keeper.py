"""Keeps the policy in the snapshot newest: Consul's intentions, the default beside them, and our settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import trio

from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Kept, Where
from agent.base.freshness import Confirmation, Freshness
from agent.base.watch_status import WatchStatus
from agent.config.settings import Settings
from agent.consul.api import Consul
from agent.consul.watch import Watch
from agent.intentions.default_policy import DefaultPolicy, unnamed_caller
from agent.policy.authorize import Policy
from agent.policy.intentions import Intentions
from agent.snapshot import Snapshot

# Starts a watch; the callback is called for each of its failures.
Begin = Callable[[Watch[Any, Any], Callable[[WatchStatus], None]], None]


class IntentionEvents(FaultEvents, Protocol):
    """The events of the intentions; must not block."""

    def intentions_changed(self, rules: int, default: str, unsupported: Sequence[str]) -> None: ...
    def intentions_too_old(self, since: datetime) -> None: ...
    def intentions_current(self) -> None: ...
    def watch_failed(self, status: WatchStatus) -> None: ...
    def watch_recovered(self, status: WatchStatus) -> None: ...


class IntentionsKeeper:
    """The only writer of the policy, and of when Consul last confirmed it."""

    def __init__(
        self,
        *,
        settings: Settings,
        consul: Consul,
        snapshot: Snapshot,
        events: IntentionEvents,
        clock: Clock,
        begin: Begin,
    ) -> None:
        self.settings = settings
        self.freshness = Freshness(snapshot.confirmed, settings.intentions_max_age, clock)
        self.default: DefaultPolicy | None = None  # once Consul's header leaves the default open
        self._status: WatchStatus | None = None  # of the watch, once there is one
        self.resumed: Intentions | None = None  # of the last run, until Consul answers
        self.listed: Intentions | None = None  # the newest list as Consul answered it
        self._consul = consul
        self._snapshot = snapshot
        self._events = events
        self._begin = begin

    def follow(self, watch: Watch[bytes, Intentions], kept: Kept) -> None:
        """Start the watch of the list, and what depends on it."""
        self._status = watch.status
        if self.settings.intentions_max_age < math.inf:
            watch.on_answer = self._confirmed
            kept.begin(Where.TASK, "age of the intentions", self._say_when_too_old)
        self._begin(watch, self._events.watch_failed)
        watch.on_recovery = self._recovered
        kept.begin(Where.TASK, "datacenter of the intentions", self._publish_at_first_leaf)

    def take(self, intentions: Intentions) -> None:
        """Take the newest list."""
        self.listed = intentions
        if intentions.default_unknown:
            self._learn_default(intentions.destination)
        self.publish()

    def publish(self) -> None:
        """Publish Consul's intentions with our own settings.

        The first time once the default has been asked for.
        """
        intentions, before = self._intentions(), self._snapshot.policy.value
        if intentions is None:
            return
        policy = Policy(
            intentions=intentions,
            narrowings=self.settings.narrow or (),
            audit=self.settings.audit,
            datacenter=self._snapshot.own_datacenter(),
        )
        if policy == before:
            return
        self._snapshot.policy.publish(policy)
        known = None if before is None else (before.intentions.rules, before.intentions.default)
        if known != (intentions.rules, intentions.default):
            self._events.intentions_changed(len(intentions.rules), intentions.default, intentions.unsupported)

    def _recovered(self, status: WatchStatus) -> None:
        """Ask for the default again, since the agent may have been restarted with another one."""
        self._events.watch_recovered(status)
        if self.default is not None:
            self.default.watch.kick()

    def _learn_default(self, service: str) -> None:
        """Ask for the default: now, after a change of the list, and at intervals from the first time on."""
        if self.default is not None:
            self.default.watch.kick()
            return
        caller = partial(_unnamed_caller, self._snapshot)
        self.default = default = DefaultPolicy(consul=self._consul, service=service, caller=caller)
        default.watch.on_answer = lambda _status: self.publish()
        self._begin(default.watch, self._default_failed)

    def _default_failed(self, status: WatchStatus) -> None:
        self._events.watch_failed(status)
        self.publish()

    def _intentions(self) -> Intentions | None:
        """Return the newest list with the default; that of the last run, or None, while a part is unknown."""
        listed, default, status = self.listed, self.default, self._status
        if listed is None or status is None:
            return self.resumed
        if not listed.default_unknown or default is None:
            return listed
        if not default.settled and (self.resumed is not None or self._snapshot.policy.value is None):
            return self.resumed
        return default.applied_to(listed, status.age or 0.0, self.settings.intentions_max_age)

    def _confirmed(self, status: WatchStatus) -> None:
        """Note the time of an answer; its list is published before, so it confirms no older one."""
        assert status.answered_at is not None  # an answer has just come
        self._snapshot.confirmed.publish(Confirmation(status.answered_at, trio.current_time()))

    async def _say_when_too_old(self) -> None:
        """Log when the intentions become too old; each process judges that by itself."""
        await self._snapshot.confirmed.first()
        while True:
            self._events.intentions_too_old(await self.freshness.becomes_too_old())
            await self.freshness.is_good_again()
            self._events.intentions_current()

    async def _publish_at_first_leaf(self) -> None:
        """Publish again at the first leaf, which names our datacenter: intentions may come before it."""
        await self._snapshot.credentials.first()
        self.publish()


def _unnamed_caller(snapshot: Snapshot) -> str:
    contexts = snapshot.credentials.value
    domain = "" if contexts is None else str(contexts.credentials.bundle.trust_domain)
    return unnamed_caller(domain, snapshot.own_datacenter())
