"""Whom our app may call, as far as the intentions say that have our service, or every one, as a source.

The far side decides, by a list of its own and by a default that need not be ours. So only a rule has a say
here, and only one that keeps us out whatever we say: a denial, or a narrowing that leaves our datacenter or
the far one out. The default policy, and permissions, which are about requests, are left to the far side, and
so is an intention that is not understood, unless it denies. Nothing is kept from our app by a list that has
not come yet.
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


class Callee(Protocol):
    """A service as who calls it knows it: by its certificate, or by what its endpoint must be."""

    @property
    def datacenter(self) -> str:
        """Where."""

    @property
    def service(self) -> str:
        """Its name."""

    @property
    def namespace(self) -> str:
        """`default`, but in Consul Enterprise."""

    @property
    def partition(self) -> str:
        """The same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIntentions:
    """Intentions by destination, of those only where some rule keeps a caller out; and for all the others.

    The destination's name is lower-cased, as Consul files intentions.

    With `audit` a denial is to be noted, and enforced by nobody here.
    """

    by_destination: Mapping[str, Intentions]
    others: Intentions
    audit: bool = False

    @property
    def rules(self) -> list[str]:
        """What there is to keep us out, for a person."""
        lists = (*self.by_destination.values(), self.others)
        return sorted({str(rule) for one in lists for rule in one.rules if _keeps_out(one)})

    def denial(self, ours: ServiceId, callee: Callee) -> Verdict | None:
        """The verdict, if a rule keeps us from calling that service in that datacenter."""
        if (callee.namespace, callee.partition) != (DEFAULT, DEFAULT):
            return None
        found = self.by_destination.get(callee.service.lower(), self.others)
        if not found.rules:
            return None
        policy = Policy(intentions=found, datacenter=callee.datacenter)
        verdict = authorize(policy, ours, None)  # as old as it may be
        if verdict.reason not in KEPT_OUT and not _is_unclear_denial(policy, ours, verdict):
            return None
        return replace(verdict, allowed=self.audit, audited=self.audit)


def parse_outgoing(answer: Sequence[object] | None) -> SourceIntentions:
    """Read our service's list out of the match answer by source; raise InvalidIntentions."""
    return Incremental(read_source_intentions(answer)).run_now()


def read_source_intentions(answer: Sequence[object] | None) -> Work[SourceIntentions]:
    """The same in pieces, with a rest after each."""
    lists: dict[str, list[object]] = {}
    for place, raw in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        item = _item(raw, place)
        if not item.source_peer:  # our app is of no peer of ours
            lists.setdefault(item.destination_name.lower(), []).append(raw)
    general = lists.pop(WILDCARD, [])
    found = {}
    for place, (name, items) in enumerate(lists.items()):
        if place % PIECE == PIECE - 1:
            yield
        intentions = yield from read_match([*items, *general], name, default_allow=True)
        if _keeps_out(intentions):
            found[name] = intentions
    others = yield from read_match(general, WILDCARD, default_allow=True)
    return SourceIntentions(by_destination=found, others=others)


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
