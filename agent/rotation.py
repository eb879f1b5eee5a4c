"""Roots and leaf, watched, proven to fit, and published together as TLS contexts.

Roots come first: the leaf is asked for once they are known, and a new leaf is proven against the newest
roots. A pair that does not fit changes nothing; why it does not is kept for status and metrics. Beside the
watches runs an alarm that reads the leaf without an index as two thirds of its life are over: it does not
depend on the watch, on the agent's cache or on anybody having asked before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

import trio

from agent.consul import Consul, ConsulError
from agent.feeds import leaf_watch, read_leaf, roots_watch
from agent.latest import Latest
from agent.watch import AnswerRejected
from certs.bundle import TrustBundle
from certs.contexts import Contexts, build_contexts
from certs.credentials import CredentialsRejected, prove
from certs.leaf import Leaf
from certs.renewal import next_ask

_LOOK_SECONDS = 60.0  # the wall clock may be set while we sleep on another one

_REJECTED_RETRY = timedelta(seconds=30)


class RotationEvents(Protocol):
    """Who hears of it."""

    def credentials_published(self, contexts: Contexts) -> None: ...
    def credentials_rejected(self, reason: str, detail: str) -> None: ...
    def renewal_failed(self, detail: str, not_after: datetime) -> None: ...


@dataclass(slots=True, kw_only=True)
class RotationStatus:
    """What there is to say beside the newest contexts."""

    rejected_reason: str = ""  # of the newest pair; empty when it was published
    rejected_detail: str = ""
    rejected_at: datetime | None = None
    rejections: Counter[str] = field(default_factory=Counter)  # by reason, ever
    renewal_due: datetime | None = None


class Rotation:
    """Keeps `contexts` the newest credentials that hold."""

    def __init__(
        self,
        consul: Consul,
        *,
        service: str,
        datacenter: str | None,
        contexts: Latest[Contexts],
        events: RotationEvents,
        clock: Callable[[], datetime],
        rng: Random,
    ) -> None:
        self._consul = consul
        self._service = service
        self._datacenter = datacenter
        self._events = events
        self._clock = clock
        self._rng = rng
        self.contexts = contexts
        self.status = RotationStatus()
        self._bundle: Latest[TrustBundle] = Latest()
        self._leaf: Latest[Leaf] = Latest()
        self.roots_watch = roots_watch(consul, self._take_bundle)
        self.leaf_watch = leaf_watch(consul, service, self._take_leaf)

    async def run(self) -> None:
        """Watch for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.roots_watch.follow, self._clock, self._rng)
            await self._bundle.first()
            nursery.start_soon(self.leaf_watch.follow, self._clock, self._rng)
            await self._leaf.first()
            nursery.start_soon(self._renew)

    def _take_bundle(self, bundle: TrustBundle) -> None:
        self._bundle.publish(bundle)
        self._prove()

    def _take_leaf(self, leaf: Leaf) -> None:
        """From the watch or from the alarm, whichever is first; the other one's is then no news."""
        if leaf == self._leaf.value and not self.status.rejected_reason:
            return
        self._leaf.publish(leaf)
        self._prove()

    def _prove(self) -> None:
        leaf, bundle = self._leaf.value, self._bundle.value
        if leaf is None or bundle is None:
            return
        now = self._clock()
        try:
            credentials = prove(leaf, bundle, service=self._service, datacenter=self._datacenter, at=now)
        except CredentialsRejected as error:
            self.status.rejected_reason, self.status.rejected_detail = error.reason.value, error.detail
            self.status.rejected_at = now
            self.status.rejections[error.reason.value] += 1
            self._events.credentials_rejected(error.reason.value, error.detail)
            return
        self.status.rejected_reason = self.status.rejected_detail = ""
        self.status.rejected_at = None
        contexts = build_contexts(credentials, self.contexts.version + 1)
        self.contexts.publish(contexts)
        self._events.credentials_published(contexts)

    async def _renew(self) -> None:
        """The alarm: sleep until the newest leaf is due, then read it without an index."""
        while True:
            version = self._leaf.version
            self.status.renewal_due = due = self._due(self._clock())
            if await self._sleep_until(due, version):
                await self._ask()

    def _due(self, now: datetime) -> datetime:
        """By the leaf in force; soon while the newest one is rejected: what does not fit now may fit then."""
        soon = now + _REJECTED_RETRY
        if self.contexts.value is None:
            return soon
        leaf = self.contexts.value.credentials.leaf
        due = now + next_ask(leaf.not_before, leaf.not_after, now, self._rng)
        return min(due, soon) if self.status.rejected_reason else due

    async def _sleep_until(self, due: datetime, version: int) -> bool:
        """True when it is due; False when another leaf came first."""
        while (rest := due - self._clock()) > timedelta(0):
            with trio.move_on_after(min(rest.total_seconds(), _LOOK_SECONDS)):
                await self._leaf.newer(version)
                return False
        return True

    async def _ask(self) -> None:
        try:
            leaf = read_leaf(await self._consul.leaf(self._service))
        except (ConsulError, AnswerRejected) as error:
            newest = self._leaf.value
            assert newest is not None  # the alarm is set for one
            self._events.renewal_failed(str(error), newest.not_after)
            return
        self._take_leaf(leaf)
