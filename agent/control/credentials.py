"""Watches roots and leaf, proves that they fit, and publishes them together as TLS contexts.

Roots come first: the leaf is asked for once they are known, and a new leaf that is ahead of them waits for
them (`roots_first`) and is proven with the newest. A pair that does not fit changes nothing; its reason is
kept for status and metrics. New roots never wait for a leaf: if the newest leaf is rejected, the leaf in
force is retained under them, even if they no longer vouch for it. So peers are judged by exactly the roots
that Consul lists, and it is our own leaf that cannot be used (`credentials_untrusted`) until another one
comes. Content is compared: an answer that lists the same roots is no change, whatever its index, order or
signing key ids are.

Beside the watches an alarm asks for the leaf without an index once two thirds of its life are over. It does
not depend on the watch, on the agent's cache or on an earlier question. An answer to a question without an
index may come from a cache, so a leaf older than ours is refused. Once our leaf has expired, or no root
vouches for it, the alarm asks twice a second with a short deadline, so that a new leaf is found within a
second.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from random import Random
from typing import Protocol

import trio

from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Kept, Where
from agent.base.latest import Latest
from agent.consul.api import Consul
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.churn import Churn
from agent.control.root_catchup import CatchUp, RootsFirst
from agent.control.watches import leaf_watch, read_leaf, roots_watch
from certs.bundle import TrustBundle
from certs.contexts import Contexts, build_contexts, rehearse
from certs.credentials import Credentials, CredentialsReason, CredentialsRejected, prove, retain
from certs.leaf import Leaf
from certs.renewal import next_ask

STALE = "stale_leaf"  # a reason beside those of `prove`: the leaf is older than the one in force

_LOOK_SECONDS = 60.0  # the longest sleep, since the wall clock may be set meanwhile
_REJECTED_RETRY = timedelta(seconds=30)
_UNSERVABLE_RETRY = timedelta(seconds=0.5)
_ROOTS_PATIENCE, _ROOTS_IMPATIENCE = (
    2.0,
    0.5,
)  # seconds to wait for a leaf's roots; the latter without a usable leaf
_UNSERVABLE_PATIENCE = (
    1.0  # seconds for an answer, so that the next question reaches an agent that has recovered
)


class RenewalSource(StrEnum):
    """What has asked for a leaf."""

    WATCH = "watch"
    ALARM = "alarm"
    OPERATOR = "operator"


class RenewalResult(StrEnum):
    """The result of an answer about the leaf."""

    NEW = "new"
    SAME = "same"
    STALE = "stale"
    REJECTED = "rejected"
    FAILED = "failed"


class CredentialsEvents(FaultEvents, Protocol):
    """The events of the credentials; must not block."""

    def credentials_published(self, contexts: Contexts) -> None: ...
    def credentials_rejected(self, reason: str, detail: str) -> None: ...
    def renewal_failed(self, detail: str, not_after: datetime) -> None: ...
    def leaf_churning(self, detail: str) -> None: ...
    def roots_behind(self, reason: str, detail: str) -> None: ...
    def roots_unreadable(self, detail: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class CredentialsStatus:
    """The state of the credentials beside the newest contexts."""

    rejected_reason: str = ""  # of the newest pair; empty if it was published
    rejected_detail: str = ""
    rejected_at: datetime | None = None
    rejections: Counter[str] = field(default_factory=Counter)  # by reason, since the start
    renewal_due: datetime | None = None
    refreshes: Counter[tuple[RenewalSource, RenewalResult]] = field(default_factory=Counter)
    # when a generation was published, its number, the serial of its leaf, the id of its signing root
    rotations: deque[tuple[datetime, int, str, str]] = field(default_factory=partial(deque, maxlen=20))
    refresh_failed: str = ""  # why the last question of the alarm or the operator brought no leaf


class CredentialsKeeper:
    """Keeps `contexts` at the newest credentials that are proven."""

    def __init__(
        self,
        consul: Consul,
        *,
        service: str,
        datacenter: str | None,
        contexts: Latest[Contexts],
        events: CredentialsEvents,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._consul = consul
        self._service = service
        self._datacenter = datacenter
        self._events = events
        self._clock = clock
        self._rng = rng
        self._churn = Churn()
        self.contexts = contexts
        self.status = CredentialsStatus()
        self._bundle: Latest[TrustBundle] = Latest()
        self._watched: Latest[Leaf] = Latest()  # as received, not proven yet
        self._leaf: Latest[Leaf] = Latest()
        self._news = trio.Event()
        self._turn = trio.Lock()  # leaves are taken one after another, in the order received
        self.roots_watch = watch = roots_watch(consul, self._take_bundle)
        self.roots_first = RootsFirst(consul.roots, self._bundle, self._take_bundle, lambda: watch.index)
        self.leaf_watch = leaf_watch(consul, service, self._watched.publish)

    @property
    def bundle(self) -> TrustBundle | None:
        """The newest roots that Consul lists; in force as soon as there is a leaf."""
        return self._bundle.value

    @property
    def churning(self) -> str:
        """The sentence of the churn alarm; empty while leaves do not come too often."""
        return self._churn.alarm(trio.current_time())

    def resume(self, leaf: Leaf, bundle: TrustBundle) -> None:
        """Take the pair that was in force in the last run, as if Consul had answered it."""
        self._take_bundle(bundle)
        self._offer(leaf)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            kept = Kept(nursery, self._events)
            kept.begin(Where.WATCH, "roots", self.roots_watch.follow, self._clock, self._rng)
            await self._bundle.first()
            kept.begin(Where.WATCH, "leaf", self.leaf_watch.follow, self._clock, self._rng)
            kept.begin(Where.TASK, "new leaves", self._take_watched)
            await self._leaf.first()
            kept.begin(Where.TASK, "renewal of the leaf", self._renew)

    async def refresh(self, by: RenewalSource, *, reissue: bool = False) -> RenewalResult:
        """Ask for the leaf now, without an index; with `reissue` for another one than ours."""
        try:
            with trio.fail_after(_UNSERVABLE_PATIENCE if self._unservable else math.inf):
                leaf = read_leaf(await self._consul.leaf(self._service, reissue=reissue))
        except (ConsulError, AnswerRejected, trio.TooSlowError) as error:
            self._failed(by, str(error) or "no answer in time")
            return RenewalResult.FAILED
        self.status.refresh_failed = ""
        self._wake_watches()
        return await self._take_in_turn(leaf, by)

    # --- answers ---

    def _take_bundle(self, bundle: TrustBundle) -> None:
        before = () if self._bundle.value is None else self._bundle.value.unreadable
        if bundle.unreadable and bundle.unreadable != before:
            self._events.roots_unreadable("; ".join(bundle.unreadable))
        self._bundle.publish(bundle)
        self._prove()

    async def _take_watched(self) -> None:
        version = 0
        while True:
            leaf, version = await self._watched.newer(version)
            await self._take_in_turn(leaf, RenewalSource.WATCH)

    async def _take_in_turn(self, leaf: Leaf, by: RenewalSource) -> RenewalResult:
        async with self._turn:
            idle = self.contexts.value is None or self._unservable
            result = await self.roots_first.have(leaf, _ROOTS_IMPATIENCE if idle else _ROOTS_PATIENCE)
            if result not in (None, CatchUp.CAME):
                detail = f"no root announces {leaf.signer}, which signed certificate {leaf.serial}"
                self._events.roots_behind(result.value, detail)
            return self._take_leaf(leaf, by)

    def _take_leaf(self, leaf: Leaf, by: RenewalSource) -> RenewalResult:
        result = self._offer(leaf)
        self.status.refreshes[by, result] += 1
        return result

    def _offer(self, leaf: Leaf) -> RenewalResult:
        """Take a leaf from the watch or the alarm; the same leaf from the other one changes nothing."""
        if leaf == self._leaf.value and not self.status.rejected_reason:
            return RenewalResult.SAME
        if self._is_stale(leaf):
            detail = f"certificate {leaf.serial} of {leaf.not_before.isoformat()} is older than ours"
            self._rejected(STALE, detail)
            return RenewalResult.STALE
        version = self.contexts.version
        life = (leaf.not_after - leaf.not_before).total_seconds()
        if leaf != self._leaf.value and self._churn.taken(trio.current_time(), life):
            self._events.leaf_churning(self.churning)
        self._leaf.publish(leaf)
        self._tell_alarm()
        if not self._prove():
            return RenewalResult.REJECTED
        return RenewalResult.NEW if self.contexts.version > version else RenewalResult.SAME

    def _is_stale(self, leaf: Leaf) -> bool:
        """Return whether the leaf is older than ours and of no use; any leaf may be if ours does not fit."""
        before = self.contexts.value
        if before is None or before.credentials.unfit:
            return False
        ours = before.credentials.leaf
        return leaf.not_before < ours.not_before and leaf.not_after <= ours.not_after

    def _prove(self) -> bool:
        """Publish the newest leaf and roots if they fit, else at least the newest roots."""
        leaf, bundle = self._leaf.value, self._bundle.value
        if leaf is None or bundle is None:
            return False
        at = self._clock()
        try:
            self._publish(prove(leaf, bundle, service=self._service, datacenter=self._datacenter, at=at))
        except CredentialsRejected as error:
            self._rejected(error.reason.value, error.detail)
            self._retain(bundle)
            return False
        self.status.rejected_reason = self.status.rejected_detail = ""
        self.status.rejected_at = None
        return True

    def _retain(self, bundle: TrustBundle) -> None:
        """Publish the newest roots with the leaf in force, whether they vouch for it or not."""
        former = self.contexts.value
        if former is None:
            return
        retained = retain(former.credentials.leaf, bundle, self._clock())
        try:
            self._publish(retained)
        except CredentialsRejected as error:
            self._publish(replace(retained, unfit=str(error)))

    def _publish(self, credentials: Credentials) -> None:
        """Publish a new generation if it differs from the one in force. Raises CredentialsRejected."""
        former = self.contexts.value
        if former is not None and _is_the_same(former.credentials, credentials):
            return
        contexts = build_contexts(credentials, self.contexts.version + 1)
        if not credentials.unfit:
            rehearse(contexts)
        self.contexts.publish(contexts)
        leaf, root = credentials.leaf.serial, credentials.bundle.active.id
        self.status.rotations.append((self._clock(), contexts.generation, leaf, root))
        self._events.credentials_published(contexts)
        self._tell_alarm()

    def _rejected(self, reason: str, detail: str) -> None:
        status = self.status
        status.rejections[reason] += 1
        if (status.rejected_reason, status.rejected_detail) == (reason, detail):
            return  # the same rejection again
        status.rejected_reason, status.rejected_detail = reason, detail
        status.rejected_at = self._clock()
        self._events.credentials_rejected(reason, detail)

    # --- the alarm ---

    async def _renew(self) -> None:
        """Sleep until the newest leaf is due, then ask for it without an index; until cancelled."""
        while True:
            news = self._news
            self.status.renewal_due = due = self._due(self._clock())
            if await self._sleep_until(due, news) and not self._held_is_valid():
                await self.refresh(RenewalSource.ALARM)

    def _due(self, now: datetime) -> datetime:
        """Return when to ask next: by the leaf in force, and soon while the newest leaf is rejected."""
        soon = now + _REJECTED_RETRY
        newest = self._leaf.value
        if self._holds() and newest is not None:
            soon = min(soon, newest.not_before)
        if self._unservable:
            return min(soon, now + _UNSERVABLE_RETRY)
        if self.contexts.value is None:
            return soon
        leaf = self.contexts.value.credentials.leaf
        due = now + next_ask(leaf.not_before, leaf.not_after, now, self._rng)
        due = min(due, leaf.not_after + _UNSERVABLE_RETRY)  # the frequent questions start then
        return min(due, soon) if self.status.rejected_reason else due

    def _holds(self) -> bool:
        """Return whether the newest leaf is not valid yet."""
        return self.status.rejected_reason == CredentialsReason.NOT_YET_VALID.value

    def _held_is_valid(self) -> bool:
        """Prove a leaf that was not valid before.

        Return whether it is in force, so that none must be asked for.
        """
        return self._holds() and self._prove()

    @property
    def _unservable(self) -> bool:
        """Whether the leaf in force has expired, or no root vouches for it."""
        current = self.contexts.value
        return current is not None and current.credentials.fault(self._clock()) is not None

    def _tell_alarm(self) -> None:
        """Wake the alarm: another leaf, or other roots in force, may be due at another time."""
        self._news.set()
        self._news = trio.Event()

    async def _sleep_until(self, due: datetime, news: trio.Event) -> bool:
        """Return True when `due` is reached, by the first of two clocks; False if `news` came before."""
        latest = trio.current_time() + (due - self._clock()).total_seconds()
        while (rest := min((due - self._clock()).total_seconds(), latest - trio.current_time())) > 0:
            with trio.move_on_after(min(rest, _LOOK_SECONDS)):
                await news.wait()
                return False
        return True

    def _failed(self, by: RenewalSource, detail: str) -> None:
        self.status.refreshes[by, RenewalResult.FAILED] += 1
        newest = self._leaf.value
        if detail != self.status.refresh_failed and newest is not None:
            self._events.renewal_failed(detail, newest.not_after)
        self.status.refresh_failed = detail

    def _wake_watches(self) -> None:
        """Let a watch that pauses after a failure ask again, since Consul answers."""
        for watch in (self.roots_watch, self.leaf_watch):
            if watch.status.failing is not None:
                watch.kick()


def _is_the_same(one: Credentials, other: Credentials) -> bool:
    return one.leaf == other.leaf and one.unfit == other.unfit and one.bundle.same_trust(other.bundle)
