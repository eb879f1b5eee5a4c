"""Which services our app may call, as far as intentions name our service, or any service, as a source.

The destination decides, by its own list and by its own default policy. So only rules that deny us in any case
count here: a denial, or a narrowing that excludes our datacenter or the destination's. The default policy and
permissions, which are about requests, are left to the destination, and so is an intention that is not
understood, unless it denies. While the list is unknown no call is denied.

`OwnIntentions` has every rule of the same answer. It explains a refusal of a callee, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from agent.base.incremental import Incremental, Work
from agent.policy.authorize import Policy, Verdict, VerdictReason, authorize
from agent.policy.intention import Effect
from agent.policy.intentions import PIECE, Intentions, InvalidIntentions, read_match
from agent.policy.wire import WILDCARD, IntentionAnswer, read_item
from certs.spiffe import DEFAULT, ServiceId

KEPT_OUT = frozenset({VerdictReason.INTENTION_DENY, VerdictReason.NARROWED})
_HALF_KNOWN = "the header allows, the destination's own agent was not asked"


class Callee(Protocol):
    """A service that is called: known by its certificate, or by the identity its endpoint must have."""

    @property
    def datacenter(self) -> str:
        """The datacenter."""

    @property
    def service(self) -> str:
        """The service's name."""

    @property
    def namespace(self) -> str:
        """The namespace: `default`, except in Consul Enterprise."""

    @property
    def partition(self) -> str:
        """The partition: `default`, except in Consul Enterprise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIntentions:
    """The rules by destination, for destinations with a rule that denies; `others` for every other one.

    Destinations are in lower case, as Consul files intentions. With `audit` a denial is counted and not
    enforced.
    """

    by_destination: Mapping[str, Intentions]
    others: Intentions
    audit: bool = False

    @property
    def rules(self) -> list[str]:
        """The rules that may deny us, for a person."""
        lists = (*self.by_destination.values(), self.others)
        return sorted({str(rule) for one in lists for rule in one.rules if _keeps_out(one)})

    def denial(self, ours: ServiceId, callee: Callee) -> Verdict | None:
        """Return the verdict if a rule denies us that service in that datacenter; None if none does."""
        if (callee.namespace, callee.partition) != (DEFAULT, DEFAULT):
            return None
        found = self.by_destination.get(callee.service.lower(), self.others)
        if not found.rules:
            return None
        policy = Policy(intentions=found, datacenter=callee.datacenter)
        verdict = authorize(policy, ours, None)  # intentions of any age deny
        if verdict.reason not in KEPT_OUT and not _is_unclear_denial(policy, ours, verdict):
            return None
        return replace(verdict, allowed=self.audit, audited=self.audit)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnIntentions:
    """Every rule that names our service, or any service, as a source, by destination, as looked up once.

    Destinations are in lower case; `others` is for those without a rule of their own. `unknown`: why the
    rules could not be looked up; empty if they are known.
    """

    by_destination: Mapping[str, Intentions]
    others: Intentions
    unknown: str = ""

    def verdict(self, ours: ServiceId, callee: Callee) -> Verdict | None:
        """Return what the rules say about a call of that service; None if they are not about it."""
        if self.unknown or (callee.namespace, callee.partition) != (DEFAULT, DEFAULT):
            return None
        found = self.by_destination.get(callee.service.lower(), self.others)
        return authorize(Policy(intentions=found, datacenter=callee.datacenter), ours, None)


def unknown_own_intentions(why: str) -> OwnIntentions:
    """Return what is known after a question that was not answered: `why`, for a person."""
    others = Intentions(destination=WILDCARD, rules=(), default_allow=False)
    return OwnIntentions(by_destination={}, others=others, unknown=why)


def read_own_intentions(answer: Sequence[object] | None, *, default_allow: bool) -> Work[OwnIntentions]:
    """Read every rule of the match answer by source in steps. Raises InvalidIntentions.

    `default_allow`: the default policy by the answer's header, of which a default that allows is only a part.
    """
    unknown = _HALF_KNOWN if default_allow else ""
    lists, general = yield from _by_destination(answer)
    found = {}
    for place, (name, items) in enumerate(lists.items()):
        if place % PIECE == PIECE - 1:
            yield
        found[name] = yield from read_match(
            [*items, *general], name, default_allow=False, default_unknown=unknown
        )
    others = yield from read_match(general, WILDCARD, default_allow=False, default_unknown=unknown)
    return OwnIntentions(by_destination=found, others=others)


def parse_outgoing(answer: Sequence[object] | None) -> SourceIntentions:
    """Read our service's list of the match answer by source. Raises InvalidIntentions."""
    return Incremental(read_source_intentions(answer)).run_now()


def read_source_intentions(answer: Sequence[object] | None) -> Work[SourceIntentions]:
    """Read the same in steps. Raises InvalidIntentions."""
    lists, general = yield from _by_destination(answer)
    found = {}
    for place, (name, items) in enumerate(lists.items()):
        if place % PIECE == PIECE - 1:
            yield
        intentions = yield from read_match([*items, *general], name, default_allow=True)
        if _keeps_out(intentions):
            found[name] = intentions
    others = yield from read_match(general, WILDCARD, default_allow=True)
    return SourceIntentions(by_destination=found, others=others)


def _by_destination(
    answer: Sequence[object] | None,
) -> Work[tuple[dict[str, list[object]], list[object]]]:
    """Return the items by destination, in lower case, and those of every destination."""
    lists: dict[str, list[object]] = {}
    for place, raw in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        item = _item(raw, place)
        if not item.source_peer:  # our own app is never of a peer
            lists.setdefault(item.destination_name.lower(), []).append(raw)
    return lists, lists.pop(WILDCARD, [])


def _item(raw: object, place: int) -> IntentionAnswer:
    try:
        return read_item(raw)
    except msgspec.DecodeError as error:
        raise InvalidIntentions(f"intentions by source, number {place + 1}: {error}") from error


def _keeps_out(intentions: Intentions) -> bool:
    return any(rule.effect is Effect.DENY or rule.narrowings for rule in intentions.rules)


def _is_unclear_denial(policy: Policy, ours: ServiceId, verdict: Verdict) -> bool:
    if verdict.reason is not VerdictReason.UNSUPPORTED_INTENTION:
        return False
    rule = policy.deciding(ours)
    return rule is not None and rule.effect is Effect.DENY
