"""One of Consul's intentions as a value: a rule about callers (docs/consul-api.md#intentions).

An intention that is not understood (`wire.py` says when) becomes a rule that denies every source it may mean,
at its own precedence, whatever its action is: it allows no call, and a source it may deny does not fall
through to a rule of lower precedence.

An intention about a peer (`SourcePeer`) names callers of another cluster, which may be another datacenter of
our own federation with certificates like ours. So its denial holds against callers from other datacenters,
and its allowance allows no caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agent.policy.narrowing import Narrowing, parse_meta
from agent.policy.permissions import Permissions, parse_permissions, unreadable_permissions
from agent.policy.wire import WILDCARD, Doubt, IntentionAnswer, doubt_of, id_of
from certs.spiffe import DEFAULT

Order: TypeAlias = tuple[int, str, str, str, int, int, str, str, str, str, bool, str, str, int]
Source: TypeAlias = tuple[str, str, str]  # partition, namespace, name


class Effect(StrEnum):
    """What an intention does to a connection."""

    ALLOW = "allow"
    DENY = "deny"
    BY_REQUEST = (
        "by_request"  # permissions decide about each HTTP request; where requests are not parsed it denies
    )


BEYOND_ALL = 1000  # a precedence above all of Consul's
_STRICTEST_FIRST = (Effect.DENY, Effect.BY_REQUEST, Effect.ALLOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """One rule. `precedence` is 9 (exact to exact) down to 1; a higher one decides first.

    `permissions` decide about each request where the effect is BY_REQUEST, and are None where it is not.
    `doubt`: what of it is not understood; it then denies, whatever its effect. `at_least`: the highest
    precedence it may have. `of_peer`: it names callers from other datacenters only.
    """

    source: str
    destination: str
    effect: Effect
    permissions: Permissions | None = None
    source_namespace: str = DEFAULT
    source_partition: str = DEFAULT  # a wildcard only if `doubt` is set
    destination_namespace: str = DEFAULT
    narrowings: tuple[Narrowing, ...] = ()
    doubt: str = ""
    at_least: int = 0
    of_peer: bool = False
    id: str = ""  # of an intention that is no part of a config entry

    @property
    def precedence(self) -> int:
        """Consul's precedence, or the highest one it may have."""
        names = self.destination_namespace, self.destination, self.source_namespace, self.source
        return max(self.at_least, _precedence(*names))

    @property
    def origin(self) -> Source:
        """The source it names."""
        return self.source_partition, self.source_namespace, self.source

    def __str__(self) -> str:
        verb = self.effect.value.replace("_", " ")
        only = "".join(f", only {narrowing}" for narrowing in self.narrowings)
        doubt = f", not understood: {self.doubt}" if self.doubt else ""
        return f"{self.source} => {self.destination} ({verb}, precedence {self.precedence}{only}{doubt})"


def read_rule(item: IntentionAnswer, destination: str) -> Intention | None:
    """Return the rule for callers of `destination`; None if it concerns no caller that we can have."""
    doubt = doubt_of(item, destination)
    if doubt is not None:
        return _doubtful(item, doubt)
    permissions = _permissions(item)
    rule = Intention(
        source=item.source_name,
        destination=item.destination_name,
        effect=_effect(item),
        permissions=permissions,
        source_namespace=item.source_ns or DEFAULT,
        source_partition=item.source_partition.lower() or DEFAULT,
        destination_namespace=item.destination_ns or DEFAULT,
        narrowings=parse_meta(item.meta, item.source_name) if item.meta else (),
        id=id_of(item),
    )
    if item.precedence in {0, rule.precedence}:  # 0: not in the answer
        return rule
    return _doubtful(item, Doubt(f"Precedence {item.precedence}, which we make {rule.precedence}"))


def deciding_order(rule: Intention) -> Order:
    """Return a sort key: Consul's order, and of two rules for one pair the stricter first.

    Consul should answer no two rules for one pair. Of two equally strict ones the same decides in any order,
    so every field is in the key.
    """
    requests = "" if rule.permissions is None else repr(rule.permissions)
    narrowed = ";".join(map(_said, rule.narrowings))
    said = (
        rule.destination,
        rule.doubt,
        requests,
        rule.destination_namespace,
        rule.of_peer,
        narrowed,
        rule.id,
        rule.at_least,
    )
    return (-rule.precedence, *rule.origin, _leniency(rule), -len(rule.narrowings), *said)


def _said(narrowing: Narrowing) -> str:
    """Return what a narrowing says, the same for equal ones: a set has no order."""
    lists = [found and sorted(found) for found in (narrowing.sources, narrowing.destinations)]
    return f"{narrowing.source} {lists} {narrowing.origin}"


def _leniency(rule: Intention) -> int:
    leniency = _STRICTEST_FIRST.index(rule.effect)
    if rule.doubt:
        return leniency - 2 * len(_STRICTEST_FIRST)
    if rule.permissions is not None and rule.permissions.unreadable is not None:
        return -1
    return leniency


def _doubtful(item: IntentionAnswer, doubt: Doubt) -> Intention | None:
    of_peer = bool(item.source_peer) and not doubt.anyone
    effect = _effect(item)
    if of_peer and effect is Effect.ALLOW:
        return None
    if doubt.anyone:
        source, namespace, text = WILDCARD, WILDCARD, f"{doubt.text} of source {item.source_name!r}"
        exact = _precedence(item.destination_ns, item.destination_name, DEFAULT, DEFAULT)
    else:
        source, namespace, text = item.source_name, item.source_ns or DEFAULT, doubt.text
        exact = 0
    return Intention(
        source=source,
        destination=item.destination_name,
        effect=effect,
        source_namespace=namespace,
        source_partition=WILDCARD,
        destination_namespace=item.destination_ns or DEFAULT,
        doubt=text,
        at_least=min(max(item.precedence, exact), BEYOND_ALL),
        of_peer=of_peer,
        id=id_of(item),
    )


def _effect(item: IntentionAnswer) -> Effect:
    if item.jwt is not None or item.permissions:
        return Effect.BY_REQUEST
    return Effect.ALLOW if item.action == "allow" else Effect.DENY


def _permissions(item: IntentionAnswer) -> Permissions | None:
    if item.jwt is not None:
        return unreadable_permissions("JSON web tokens are not verified here")
    return parse_permissions(item.permissions) if item.permissions else None


def _precedence(destination_namespace: str, destination: str, source_namespace: str, source: str) -> int:
    """Return Consul's precedence: by the destination's exactness first, then by the source's."""
    return 3 * (_exactness(destination_namespace, destination) + 1) - 2 + _exactness(source_namespace, source)


def _exactness(namespace: str, name: str) -> int:
    if namespace == WILDCARD:
        return 0
    return 1 if name == WILDCARD else 2
