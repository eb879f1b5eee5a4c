"""Measures how old our datacenter's replica of intentions and roots is, by asking the primary the same.

Intentions and roots are made in the primary datacenter and copied to the others. A secondary that is cut off
goes on answering, with what it had, and nothing in its answers says so. So the primary itself is asked,
through our agent and `?dc=`, at a low rate. What both say alike is confirmed at that moment; the age is the
time since.

The primary is the datacenter whose active root signs its leaves itself, unless a setting names it. A primary
with an authority of its own kind (Vault) signs by an intermediate, so there the setting is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Protocol, TypeVar

import trio

from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.base.undecodable import UNREADABLE
from agent.consul.api import Consul
from agent.consul.errors import ConsulError, ConsulReason
from agent.policy.intentions import Intentions, read_match
from certs.bundle import BundleRejected, TrustBundle, parse_roots
from certs.contexts import Contexts

T = TypeVar("T")

ASK_SECONDS = 20.0  # between two questions while all is well
DOUBT_SECONDS = 5.0  # and while it is not
PRIMARY_SECONDS = 300.0  # and in the primary, which could become a secondary only by another configuration
ANSWER_SECONDS = 3.0  # for one answer across the WAN


class ReplicaReason(StrEnum):
    """What the last comparison has shown."""

    UNASKED = "unasked"
    PRIMARY = "primary"  # our datacenter is the primary, so there is no replica
    CURRENT = "current"  # the primary says the same
    BEHIND = "behind"  # the primary says something else
    UNREACHABLE = "unreachable"  # the primary does not answer
    REFUSED = "refused"  # the primary does not let our token read it
    PRIMARY_UNKNOWN = "primary_unknown"  # no datacenter shows that it is the primary


@dataclass(slots=True)
class Part:
    """One replica. `confirmed` is when the primary last said the same, by trio's clock."""

    began: float
    reason: ReplicaReason = ReplicaReason.UNASKED
    detail: str = ""
    confirmed: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the primary last said the same, or since the start; None in the primary."""
        if self.reason in (ReplicaReason.PRIMARY, ReplicaReason.UNASKED):
            return None
        return trio.current_time() - (self.began if self.confirmed is None else self.confirmed)

    def found(self, reason: ReplicaReason, detail: str = "") -> None:
        """Note the result of a comparison."""
        self.reason, self.detail = reason, detail
        if reason is ReplicaReason.CURRENT:
            self.confirmed = trio.current_time()

    def describe(self, primary: str) -> str:
        """Return a sentence about the age, for a person; empty in the primary and before the first answer."""
        if self.age is None:
            return ""
        since = "the start" if self.confirmed is None else "the primary last said the same"
        why = f", {self.reason}: {self.detail}" if self.detail else ""
        return f"{self.age:.0f} s since {since} (primary {primary or 'unknown'}{why})"


class ReplicaEvents(Protocol):
    """The events of the replicas; must not block."""

    def replica_old(self, of: str, detail: str) -> None: ...
    def replica_current(self, of: str) -> None: ...


class _Silent:
    def replica_old(self, of: str, detail: str) -> None:
        """Say nothing: the one who compares once reads the result."""

    def replica_current(self, of: str) -> None:
        """Say nothing."""


@dataclass(kw_only=True)
class Replica:
    """The replicas of our datacenter. `listed` returns the intentions that we know, None while we do not, and
    `bundle` the roots in force.

    `primary` is the setting, empty where the primary is to be found out. `warn_seconds` is the age at which
    an operator is told.
    """

    consul: Consul
    service: str
    datacenter: Callable[[], str]
    listed: Callable[[], Intentions | None]
    bundle: Callable[[], TrustBundle]
    events: ReplicaEvents = field(default_factory=_Silent)
    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - the pauses between questions
    primary: str = ""
    warn_seconds: float = 120.0
    parts: dict[str, Part] = field(init=False)
    _told: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        began = trio.current_time()
        self.parts = {"intentions": Part(began), "roots": Part(began)}

    async def follow(self, credentials: Latest[Contexts]) -> None:
        """Compare until cancelled, from the first credentials on."""
        await credentials.first()
        while True:
            await self.compare()
            self._tell()
            await self._rest()

    async def compare(self) -> None:
        """Ask the primary once, and note what is found."""
        try:
            primary = self.primary or await self._found()
        except (ConsulError, BundleRejected, *UNREADABLE) as error:
            self._all(ReplicaReason.UNREACHABLE, str(error))
            return
        if not primary:
            self._all(ReplicaReason.PRIMARY_UNKNOWN, "set primary_datacenter")
        elif primary == self.datacenter():
            self._all(ReplicaReason.PRIMARY)
        else:
            self.primary = primary
            await self._compare_one("roots", self._same_roots)
            if self.listed() is not None:
                await self._compare_one("intentions", self._same_intentions)

    @property
    def complaints(self) -> list[str]:
        """One sentence for each replica that is older than `warn_seconds`."""
        return [f"replica of {name}: {part.describe(self.primary)}" for name, part in self._old()]

    def describe(self, name: str) -> str:
        """Return a sentence about one replica; empty where there is nothing to say."""
        return self.parts[name].describe(self.primary)

    def _old(self) -> list[tuple[str, Part]]:
        aged = ((name, part, part.age) for name, part in self.parts.items())
        return [(name, part) for name, part, age in aged if age is not None and age > self.warn_seconds]

    def _tell(self) -> None:
        old = dict(self._old())
        for name in self.parts:
            if name in old and name not in self._told:
                self._told.add(name)
                self.events.replica_old(name, self.describe(name))
            elif name not in old and name in self._told:
                self._told.discard(name)
                self.events.replica_current(name)

    async def _rest(self) -> None:
        reasons = {part.reason for part in self.parts.values()}
        if reasons == {ReplicaReason.PRIMARY}:
            seconds = PRIMARY_SECONDS
        elif reasons & {ReplicaReason.BEHIND, ReplicaReason.UNREACHABLE}:
            seconds = DOUBT_SECONDS
        else:
            seconds = ASK_SECONDS
        await trio.sleep(seconds * self.rng.uniform(0.9, 1.1))

    async def _found(self) -> str:
        """Return the primary; empty if no datacenter shows that it is. Raises ConsulError, BundleRejected."""
        if self.bundle().signs_itself:
            return self.datacenter()
        failure: ConsulError | None = None
        for name in await _in_time(self.consul.datacenters()):
            if name != self.datacenter():
                try:
                    answer = await _in_time(self.consul.roots_of(name))
                except ConsulError as error:
                    failure = error
                    continue
                if parse_roots(answer.value).signs_itself:
                    return name
        if failure is not None:
            raise failure
        return ""

    async def _compare_one(self, name: str, same: Callable[[], Awaitable[bool]]) -> None:
        part = self.parts[name]
        try:
            if await same():
                part.found(ReplicaReason.CURRENT)
            else:
                part.found(ReplicaReason.BEHIND, f"{self.primary} has others than {self.datacenter()}")
        except ConsulError as error:
            refused = error.reason is ConsulReason.DENIED
            part.found(ReplicaReason.REFUSED if refused else ReplicaReason.UNREACHABLE, str(error))
        except (BundleRejected, *UNREADABLE) as error:
            part.found(ReplicaReason.UNREACHABLE, str(error))

    async def _same_roots(self) -> bool:
        theirs = parse_roots((await _in_time(self.consul.roots_of(self.primary))).value)
        return self.bundle().same_trust(theirs)

    async def _same_intentions(self) -> bool:
        answer = await _in_time(self.consul.intentions(self.service, datacenter=self.primary))
        if answer.filtered:
            text = "the token may not read the intentions there"
            raise ConsulError(ConsulReason.DENIED, "intentions", text)
        theirs = await Incremental(read_match(answer.value, self.service, default_allow=False)).run()
        ours = self.listed()
        return ours is not None and ours.rules == theirs.rules

    def _all(self, reason: ReplicaReason, detail: str = "") -> None:
        for part in self.parts.values():
            part.found(reason, detail)


async def _in_time(answer: Awaitable[T]) -> T:
    """Return the answer. Raises ConsulError, also if there is none in time."""
    with trio.move_on_after(ANSWER_SECONDS):
        return await answer
    raise ConsulError(ConsulReason.UNAVAILABLE, "?dc=", f"no answer within {ANSWER_SECONDS:g} s")
