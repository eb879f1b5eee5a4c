"""What the agent watches about itself: its registration, its credentials, who may call it.

Until the agent serves, a refusal by Consul ends it; afterwards the watches ask on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import trio

from agent.ageing import age
from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.config.effective import laid_over
from agent.config.registration import Registration
from agent.consul.api import ConsulError
from agent.consul.watch import WatchStatus
from agent.control.bootstrap import raise_if_fatal
from agent.control.credentials import Rotation
from agent.control.default_policy import DefaultPolicy, unnamed_caller
from agent.control.watches import intentions_watch, outgoing_watch, registration_watch
from agent.observe.readiness import is_gone
from agent.parts import Parts
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import Outgoing


@dataclass(slots=True, kw_only=True)
class OwnWatches:
    """Starts them in one nursery, each once."""

    parts: Parts
    nursery: trio.Nursery
    listed: Intentions | None = field(init=False, default=None)  # as Consul gave them last

    def credentials(self, registration: Registration) -> None:
        """Watch roots and leaf."""
        parts = self.parts
        parts.rotation = rotation = Rotation(
            parts.consul,
            service=registration.service,
            datacenter=registration.datacenter,
            contexts=parts.contexts,
            events=parts.journal,
            clock=parts.clock,
            rng=parts.rng,
        )
        for status_of in (rotation.roots_watch, rotation.leaf_watch):
            status_of.on_failure, status_of.on_recovery = self._failed, parts.journal.watch_recovered
        self.nursery.start_soon(rotation.run)

    def intentions(self) -> None:
        """Watch who may call us, from the first public listener on."""
        parts = self.parts
        registration = parts.placement.value
        if parts.intentions_watch is not None or registration is None:
            return
        parts.intentions_watch = watch = intentions_watch(
            parts.consul, registration.service, self._take_intentions
        )
        watch.on_failure, watch.on_recovery = self._failed, self._intentions_recovered
        self.nursery.start_soon(watch.follow, parts.clock, parts.rng)
        self.nursery.start_soon(self._tell_datacenter)
        if parts.settings.intentions_max_age < math.inf:
            watch.on_answer = self._heard_again
            self.nursery.start_soon(age, parts.intentions, parts.clock, parts.journal)

    async def outgoing(self) -> None:
        """Watch whom we may not call, from the first upstream on. Nothing waits for it, nor ends with it."""
        parts, version = self.parts, 0
        if not parts.settings.judge_outbound:
            return
        while True:
            registration, version = await parts.placement.newer(version)
            if registration.upstreams:
                break
        watch = outgoing_watch(parts.consul, registration.service, self._take_outgoing)
        watch.on_failure, watch.on_recovery = parts.journal.watch_failed, parts.journal.watch_recovered
        parts.outgoing_watch = watch
        await watch.follow(parts.clock, parts.rng)

    def registration(self, proxy_id: str) -> None:
        """Watch what Consul says we are."""
        parts = self.parts
        parts.registration_watch = watch = registration_watch(parts.consul, proxy_id, self.take)
        watch.on_failure, watch.on_recovery = self._registration_failed, parts.journal.watch_recovered
        self.nursery.start_soon(watch.follow, parts.clock, parts.rng)

    def take(self, registration: Registration) -> None:
        """A registration, published with the settings laid over it. Raises Exit."""
        parts = self.parts
        placed, before = laid_over(registration, parts.settings), parts.placement.value
        if before == placed:
            return
        if before is not None and before.service != placed.service:
            # Leaf, intentions and metrics are the service's: another service is another agent.
            text = f"proxy {placed.proxy_id!r} now stands for {placed.service!r}, not {before.service!r}"
            raise Exit(ExitCode.FAILED, f"{text}; starting again takes it up")
        parts.placement.publish(placed)
        parts.journal.registration_changed(placed.proxy_id, list(map(str, placed.problems)))

    def token_changed(self) -> None:
        """The token file has another token: whatever waits for its next try tries now."""
        self.parts.journal.token_changed()
        self.parts.ask_again()

    def _take_intentions(self, intentions: Intentions) -> None:
        self.listed = intentions
        if intentions.default_unknown:
            self._learn_default(intentions.destination)
        self._publish_intentions()

    def _intentions_recovered(self, status: WatchStatus) -> None:
        """The agent may have been started anew, with another default."""
        self.parts.journal.watch_recovered(status)
        if self.parts.default_policy is not None:
            self.parts.default_policy.watch.kick()

    def _learn_default(self, service: str) -> None:
        """Ask what the default is: now, after a change of the list, and at intervals from the first on."""
        parts = self.parts
        if parts.default_policy is not None:
            parts.default_policy.watch.kick()
            return
        parts.default_policy = default = DefaultPolicy(
            consul=parts.consul, service=service, caller=self._unnamed_caller
        )
        default.watch.on_failure, default.watch.on_recovery = (
            self._default_failed,
            parts.journal.watch_recovered,
        )
        default.watch.on_answer = self._default_answered
        self.nursery.start_soon(default.watch.follow, parts.clock, parts.rng)

    def _unnamed_caller(self) -> str:
        contexts = self.parts.contexts.value
        domain = "" if contexts is None else str(contexts.credentials.bundle.trust_domain)
        return unnamed_caller(domain, self.parts.own_datacenter())

    def _default_failed(self, status: WatchStatus) -> None:
        self.parts.journal.watch_failed(status)
        self._publish_intentions()

    def _default_answered(self, _status: WatchStatus) -> None:
        self._publish_intentions()

    def _publish_intentions(self) -> None:
        """The list with all that belongs to it; the first waits for the answer about the default, or none."""
        placed, before = self._placed(), self.parts.intentions.value
        if placed is None or placed == before:
            return
        self.parts.intentions.publish(placed)
        if before is None or (before.rules, before.default) != (placed.rules, placed.default):
            self.parts.journal.intentions_changed(len(placed.rules), placed.default, placed.unsupported)

    def _placed(self) -> Intentions | None:
        listed, default, watch = self.listed, self.parts.default_policy, self.parts.intentions_watch
        before = self.parts.intentions.value
        if listed is None or watch is None:
            return None
        if listed.default_unknown and default is not None:
            if before is None and not default.settled:
                return None
            kept = self.parts.settings.intentions_max_age
            listed = default.laid_over(listed, watch.status.age or 0.0, kept)
        placed = self._with_settings(listed)
        is_old = before is not None and before.too_old and before.good_until == placed.good_until
        return replace(placed, too_old=is_old)

    def _take_outgoing(self, outgoing: Outgoing) -> None:
        self.parts.outgoing.publish(replace(outgoing, audit=self.parts.settings.audit))
        self.parts.journal.outgoing_changed(len(outgoing.rules))

    def _heard_again(self, _status: WatchStatus) -> None:
        """An answer that says the same makes them good for longer."""
        known = self.parts.intentions.value
        if known is not None and known != (renewed := self._with_settings(replace(known, too_old=False))):
            self.parts.intentions.publish(renewed)

    def _with_settings(self, intentions: Intentions) -> Intentions:
        told = self.parts.settings
        return replace(
            intentions,
            narrowings=told.narrow or (),
            audit=told.audit,
            datacenter=self.parts.own_datacenter(),
            good_until=self._good_until(),
        )

    def _good_until(self) -> datetime | None:
        watch, seconds = self.parts.intentions_watch, self.parts.settings.intentions_max_age
        if watch is None or watch.status.answered_at is None or seconds == math.inf:
            return None
        return watch.status.answered_at + timedelta(seconds=seconds)

    async def _tell_datacenter(self) -> None:
        """Intentions may come before the leaf, which says where we are."""
        await self.parts.contexts.first()
        known = self.parts.intentions.value
        if known is not None and known.datacenter != self.parts.own_datacenter():
            self.parts.intentions.publish(self._with_settings(known))

    def _failed(self, status: WatchStatus) -> None:
        self.parts.journal.watch_failed(status)
        if self.parts.phase is Phase.STARTING and isinstance(status.failing, ConsulError):
            raise_if_fatal(status.failing, self.parts.settings)

    def _registration_failed(self, status: WatchStatus) -> None:
        self.parts.journal.watch_failed(status)
        if is_gone(status) and (status.failures_in_row == 1 or status.reason_changed):
            placed = self.parts.placement.value
            self.parts.journal.registration_gone(placed.proxy_id if placed else "")
