"""Who may call us: Consul's intentions, evaluated here for each connection or request.

See docs/consul-api.md#intentions.

The match answer is read once per change. Its order is not trusted: precedence is computed anew, as Consul
does. Three questions can be asked of them: `authorize` of a connection whose bytes are not looked at,
`authorize_caller` of one whose requests will be judged each, `authorize_request` of one such request.
Whatever cannot be judged is denied, with that reason.

What they allow may be narrowed by datacenter (`narrowing.py`), by an intention's Meta or by our settings: as
the last step, and never the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from typing import TypeAlias

import msgspec

from agent.base.incremental import Pieces, Work
from agent.http1.request import OVERRIDING, HttpRequest
from agent.policy.narrowing import Narrowing, parse_meta
from agent.policy.permissions import (
    Permission,
    Permissions,
    Unreadable,
    parse_permissions,
    unreadable_permissions,
)
from agent.policy.wire import WILDCARD, IntentionAnswer, can_decide, read_item
from certs.spiffe import DEFAULT, ServiceId


class InvalidIntentions(ValueError):
    """An answer of the wrong shape; the text names the path of the field."""


class Effect(StrEnum):
    """What an intention does to a connection."""

    ALLOW = "allow"
    DENY = "deny"
    BY_REQUEST = "by_request"  # Permissions decide per HTTP request; where nobody can, it denies


class VerdictReason(StrEnum):
    """What decided."""

    INTENTION_ALLOW = "intention_allow"
    INTENTION_DENY = "intention_deny"
    INTENTION_BY_REQUEST = "intention_by_request"
    DEFAULT_ALLOW = "default_allow"
    DEFAULT_DENY = "default_deny"
    PERMISSION_ALLOW = "permission_allow"
    PERMISSION_DENY = "permission_deny"
    UNSUPPORTED_PATTERN = "unsupported_pattern"
    UNSUPPORTED_PERMISSION = "unsupported_permission"
    NARROWED = "narrowed_by_datacenter"
    INTENTIONS_TOO_OLD = "intentions_too_old"  # intentions_max_age: whatever the list says
    OVERRIDING_HEADER = "overriding_header"  # asks the app to see another method or path than was judged


_DECIDED = {
    Effect.ALLOW: VerdictReason.INTENTION_ALLOW,
    Effect.DENY: VerdictReason.INTENTION_DENY,
    Effect.BY_REQUEST: VerdictReason.INTENTION_BY_REQUEST,
}
PIECE = 100  # intentions read at a time: about a millisecond of work
_Order: TypeAlias = tuple[int, str, str, str, str, int, str]
_STRICTEST_FIRST = (Effect.DENY, Effect.BY_REQUEST, Effect.ALLOW)
_UNREADABLE = {
    Unreadable.PATTERN: VerdictReason.UNSUPPORTED_PATTERN,
    Unreadable.PERMISSION: VerdictReason.UNSUPPORTED_PERMISSION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """One rule. `precedence` is 9 (exact to exact) down to 1; a higher one decides first.

    `permissions` decide about each request where the effect is BY_REQUEST, and are None where it is not.
    """

    source: str
    destination: str
    effect: Effect
    permissions: Permissions | None = None
    source_namespace: str = DEFAULT
    destination_namespace: str = DEFAULT
    narrowings: tuple[Narrowing, ...] = ()

    @property
    def precedence(self) -> int:
        """Consul's number: the destination's exactness first, then the source's."""
        return (
            3 * (_exactness(self.destination_namespace, self.destination) + 1)
            - 2
            + _exactness(self.source_namespace, self.source)
        )

    def __str__(self) -> str:
        verb = self.effect.value.replace("_", " ")
        only = "".join(f", only {narrowing}" for narrowing in self.narrowings)
        return f"{self.source} => {self.destination} ({verb}, precedence {self.precedence}{only})"


class _Places:  # derived, so no field: neither compared nor told to another process
    __slots__ = ("_places", "_told", "by_request", "narrows")

    by_request: bool  # whether any caller's requests have to be looked at
    narrows: bool  # whether anything here narrows what is allowed
    _places: Mapping[tuple[str, str], int]
    _told: dict[tuple[str, str, int], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intentions(_Places):
    """The rules for one destination, in deciding order, and what holds when none of them speaks.

    `narrowings` are those of our settings; `datacenter` is the destination's, ours, empty while unknown.
    With `audit` what would be denied is allowed, and the verdict says so. Unless Consul answers once more
    they are good until `good_until` (None: for ever) and `too_old` from then on, and deny (agent.ageing).
    """

    destination: str
    rules: tuple[Intention, ...]
    default_allow: bool
    narrowings: tuple[Narrowing, ...] = ()
    datacenter: str = ""
    audit: bool = False
    good_until: datetime | None = None
    too_old: bool = False

    def __post_init__(self) -> None:
        """Note where each source is first spoken of, so that more rules make no connection dearer."""
        places: dict[tuple[str, str], int] = {}
        for place, rule in enumerate(self.rules):
            places.setdefault((rule.source_namespace, rule.source), place)
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_told", {})
        by_request = any(rule.effect is Effect.BY_REQUEST for rule in self.rules)
        object.__setattr__(self, "by_request", by_request)
        narrows = bool(self.narrowings) or any(rule.narrowings for rule in self.rules)
        object.__setattr__(self, "narrows", narrows)

    @property
    def header_names(self) -> frozenset[str]:
        """The headers, folded, that any permission looks at."""
        return frozenset().union(*(rule.permissions.header_names for rule in self.rules if rule.permissions))

    def deciding(self, source: ServiceId) -> Intention | None:
        """The first rule, by precedence, that speaks of the source; None leaves it to the default policy.

        Names are compared exactly, case included.
        """
        if source.partition != DEFAULT:  # wildcards do not cross partitions
            return None
        namespaces, names = (source.namespace, WILDCARD), (source.service, WILDCARD)
        found = [self._places.get((namespace, name)) for namespace in namespaces for name in names]
        place = min((one for one in found if one is not None), default=None)
        return None if place is None else self.rules[place]

    def by_permission(self, rule: Intention, permission: Permission | None) -> Verdict:
        """What it means that this one of the rule's permissions, or none, decides; put into words once."""
        number = 0 if permission is None else permission.number
        key = rule.source_namespace, rule.source, number  # only the first rule of a source ever decides
        verdict = self._told.get(key)
        if verdict is None:
            verdict = self._told[key] = _by_permission(self, rule, permission)
        return verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision on one caller; `rule` is the deciding rule for a person to read.

    `audited`: it is denied for that reason, and allowed because nothing is enforced.
    """

    allowed: bool
    reason: VerdictReason
    rule: str
    audited: bool = False


def parse_match(answer: Sequence[object] | None, destination: str, *, default_allow: bool) -> Intentions:
    """Read one destination's list out of the match answer (null is none); raise InvalidIntentions."""
    return Pieces(read_match(answer, destination, default_allow=default_allow)).at_once()


def read_match(answer: Sequence[object] | None, destination: str, *, default_allow: bool) -> Work[Intentions]:
    """The same in pieces, with a rest after each: ten thousand intentions are a tenth of a second of work.

    Kept are the rules that can ever decide here: for this destination or the wildcard, from no peer, of the
    default namespace or the wildcard, and of the default partition. The items are decoded, or still JSON
    (msgspec.Raw), which is quicker.
    """
    rules: list[tuple[_Order, Intention]] = []
    for place, raw in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        try:
            item = read_item(raw)
        except msgspec.DecodeError as error:
            detail = str(error).replace("`$", f"`$[{place}]")
            raise InvalidIntentions(f"intentions of {destination}: {detail}") from error
        if can_decide(item, destination):
            rule = _intention(item)
            rules.append((_deciding_order(rule), rule))
    rules.sort(key=itemgetter(0))
    ordered = tuple(rule for _, rule in rules)
    return Intentions(destination=destination, rules=ordered, default_allow=default_allow)


def authorize(intentions: Intentions, source: ServiceId) -> Verdict:
    """Whether a connection may carry whatever it likes; one to be judged by request may not.

    The source's trust domain must have been checked: intentions do not look at it.
    """
    return _settled(intentions, source, _of_connection(intentions, source))


def authorize_caller(intentions: Intentions, source: ServiceId) -> Verdict:
    """Whether a connection may be made whose requests are then judged one by one."""
    verdict = _of_connection(intentions, source)
    allowed = verdict.allowed or verdict.reason is VerdictReason.INTENTION_BY_REQUEST
    return _settled(intentions, source, replace(verdict, allowed=allowed))


def authorize_request(intentions: Intentions, source: ServiceId, request: HttpRequest) -> Verdict:
    """Whether that request may be made.

    Where the deciding intention has permissions and none of them matches, the default policy holds, not an
    intention of lower precedence.
    """
    return _settled(intentions, source, _of_request(intentions, source, request))


def _of_connection(intentions: Intentions, source: ServiceId) -> Verdict:
    rule = intentions.deciding(source)
    if rule is None:
        return _by_default(intentions)
    return Verdict(allowed=rule.effect is Effect.ALLOW, reason=_DECIDED[rule.effect], rule=str(rule))


def _of_request(intentions: Intentions, source: ServiceId, request: HttpRequest) -> Verdict:
    rule = intentions.deciding(source)
    if rule is None or rule.permissions is None:
        return _of_connection(intentions, source)
    if rule.permissions.unreadable is not None:
        reason = _UNREADABLE[rule.permissions.unreadable]
        return Verdict(allowed=False, reason=reason, rule=f"{rule}, {rule.permissions.detail}")
    if overriding := OVERRIDING & request.headers.keys():
        detail = f"{rule}, {min(overriding)} would change the request after it was judged"
        return Verdict(allowed=False, reason=VerdictReason.OVERRIDING_HEADER, rule=detail)
    return intentions.by_permission(rule, rule.permissions.first(request))


def _by_permission(intentions: Intentions, rule: Intention, permission: Permission | None) -> Verdict:
    if permission is None:
        verdict = _by_default(intentions)
        return replace(verdict, rule=f"{rule}, no permission matches, {verdict.rule}")
    reason = VerdictReason.PERMISSION_ALLOW if permission.allow else VerdictReason.PERMISSION_DENY
    return Verdict(allowed=permission.allow, reason=reason, rule=f"{rule}, {permission}")


def _settled(intentions: Intentions, source: ServiceId, verdict: Verdict) -> Verdict:
    """The verdict after what comes last: age and narrowing take away, and audit enforces nothing."""
    if intentions.too_old:
        verdict = _too_old(intentions)
    elif verdict.allowed and intentions.narrows:
        verdict = _narrowed(intentions, source, verdict)
    if intentions.audit and not verdict.allowed:
        return replace(verdict, allowed=True, audited=True)
    return verdict


def _too_old(intentions: Intentions) -> Verdict:
    at = "" if intentions.good_until is None else f" since {intentions.good_until.isoformat()}"
    rule = f"intentions are too old{at} (intentions_max_age)"
    return Verdict(allowed=False, reason=VerdictReason.INTENTIONS_TOO_OLD, rule=rule)


def _narrowed(intentions: Intentions, source: ServiceId, verdict: Verdict) -> Verdict:
    """What is allowed, unless the deciding rule or our settings exclude the caller's datacenter or ours."""
    rule = intentions.deciding(source)
    for narrowing in (*(rule.narrowings if rule else ()), *intentions.narrowings):
        if narrowing.covers(source.service):
            objection = narrowing.objection(source.datacenter, intentions.datacenter)
            if objection:
                detail = f"{verdict.rule}, {objection}"
                return Verdict(allowed=False, reason=VerdictReason.NARROWED, rule=detail)
    return verdict


def _by_default(intentions: Intentions) -> Verdict:
    if intentions.default_allow:
        return Verdict(allowed=True, reason=VerdictReason.DEFAULT_ALLOW, rule="default policy (allow)")
    return Verdict(allowed=False, reason=VerdictReason.DEFAULT_DENY, rule="default policy (deny)")


def _exactness(namespace: str, name: str) -> int:
    if namespace == WILDCARD:
        return 0
    return 1 if name == WILDCARD else 2


def _intention(item: IntentionAnswer) -> Intention:
    permissions = _permissions(item)
    if permissions is not None:
        effect = Effect.BY_REQUEST
    else:
        effect = Effect.ALLOW if item.action == "allow" else Effect.DENY  # an action we do not know denies
    return Intention(
        source=item.source_name,
        destination=item.destination_name,
        effect=effect,
        permissions=permissions,
        source_namespace=item.source_ns or DEFAULT,
        destination_namespace=item.destination_ns or DEFAULT,
        narrowings=parse_meta(item.meta or {}, item.source_name),
    )


def _permissions(item: IntentionAnswer) -> Permissions | None:
    if item.jwt:
        return unreadable_permissions("JSON web tokens are not verified here")
    return parse_permissions(item.permissions) if item.permissions else None


def _deciding_order(rule: Intention) -> _Order:
    """Consul's order; of two rules for the same pair, which it should never answer, the stricter."""
    names = (rule.source_namespace, rule.source, rule.destination_namespace, rule.destination)
    return (-rule.precedence, *names, _STRICTEST_FIRST.index(rule.effect), str(rule))
