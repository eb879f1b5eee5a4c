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

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import itemgetter

import msgspec

from agent.base.incremental import Incremental, Work
from agent.http1.request import OVERRIDING, HttpRequest
from agent.policy.intention import Effect, Intention, Order, Source, deciding_order, read_rule
from agent.policy.narrowing import Narrowing
from agent.policy.permissions import Permission, Unreadable
from agent.policy.wire import WILDCARD, read_item
from certs.spiffe import ServiceId


class InvalidIntentions(ValueError):
    """An answer of the wrong shape; the text names the path of the field."""


class VerdictReason(StrEnum):
    """What decided."""

    INTENTION_ALLOW = "intention_allow"
    INTENTION_DENY = "intention_deny"
    INTENTION_BY_REQUEST = "intention_by_request"
    UNSUPPORTED_INTENTION = "unsupported_intention"
    DEFAULT_ALLOW = "default_allow"
    DEFAULT_DENY = "default_deny"
    DEFAULT_UNKNOWN = "default_unknown"  # what Consul says of it would allow, and is not all that it says
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
_NOWHERE = sys.maxsize
_UNREADABLE = {
    Unreadable.PATTERN: VerdictReason.UNSUPPORTED_PATTERN,
    Unreadable.PERMISSION: VerdictReason.UNSUPPORTED_PERMISSION,
}


class _Places:  # derived, so no field: neither compared nor told to another process
    __slots__ = ("_doubts", "_of_peers", "_places", "_told", "by_request", "narrows")

    by_request: bool  # whether any caller's requests have to be looked at
    narrows: bool  # whether anything here narrows what is allowed
    _places: Mapping[Source, int]  # where each source is first spoken of
    _doubts: Mapping[Source, int]  # the same by what is not understood
    _of_peers: Mapping[Source, int]  # the same of callers from other datacenters alone
    _told: dict[tuple[Source, int], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intentions(_Places):
    """The rules for one destination, in deciding order, and what holds when none of them speaks.

    `default_unknown` says why nothing is allowed by default though a header of Consul's allows, and
    `default_origin` what Consul says beside that header. `narrowings` are those of our settings.
    `datacenter` is the destination's, ours, empty while unknown. With `audit` what would be denied is
    allowed, and the verdict says so. Unless Consul answers once more they are good until `good_until` (None:
    for ever) and `too_old` from then on, and deny (agent.ageing).
    """

    destination: str
    rules: tuple[Intention, ...]
    default_allow: bool
    default_unknown: str = ""
    default_origin: str = ""
    narrowings: tuple[Narrowing, ...] = ()
    datacenter: str = ""
    audit: bool = False
    good_until: datetime | None = None
    too_old: bool = False

    def __post_init__(self) -> None:
        """Note where each source is first spoken of, so that more rules make no connection dearer."""
        places: dict[Source, int] = {}
        doubts: dict[Source, int] = {}
        of_peers: dict[Source, int] = {}
        for place, rule in enumerate(self.rules):
            index = of_peers if rule.of_peer else doubts if rule.doubt else places
            index.setdefault(rule.origin, place)
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_doubts", doubts)
        object.__setattr__(self, "_of_peers", of_peers)
        object.__setattr__(self, "_told", {})
        by_request = any(rule.effect is Effect.BY_REQUEST and not rule.doubt for rule in self.rules)
        object.__setattr__(self, "by_request", by_request)
        narrows = bool(self.narrowings) or any(rule.narrowings for rule in self.rules)
        object.__setattr__(self, "narrows", narrows)

    @property
    def header_names(self) -> frozenset[str]:
        """The headers, folded, that any permission looks at."""
        return frozenset().union(*(rule.permissions.header_names for rule in self.rules if rule.permissions))

    @property
    def default(self) -> str:
        """The default policy, in a word."""
        if self.default_unknown:
            return "unknown"
        return "allow" if self.default_allow else "deny"

    @property
    def unsupported(self) -> list[str]:
        """The rules that deny, whole or each request, because they are not understood; for a person."""
        unreadable = ((rule, rule.permissions) for rule in self.rules if rule.permissions is not None)
        return [
            *(str(rule) for rule in self.rules if rule.doubt),
            *(f"{rule}, {found.detail}" for rule, found in unreadable if found.unreadable is not None),
        ]

    def with_default(self, allow: bool | None, said: str) -> Intentions:
        """The same after Consul was asked for its default; of that and the header the stricter holds.

        `allow` is None where there was no answer, and `said` why; else it is Consul's reason.
        """
        if not self.default_unknown:
            return self
        verb = "allows" if allow else "does not tell" if allow is None else "denies"
        return replace(
            self,
            default_allow=allow is True,
            default_unknown=said if allow is None else "",
            default_origin=f"authorize {verb}: {said}",
        )

    def deciding(self, source: ServiceId) -> Intention | None:
        """The first rule, by precedence, that speaks of the source; None leaves it to the default policy.

        Its name is compared exactly, case included, as Consul does. A wildcard does not cross partitions.
        """
        found = _first(self._places, source.partition, source)
        if self._doubts:
            found = min(found, _first(self._doubts, WILDCARD, source))
        if self._of_peers and source.datacenter.lower() != self.datacenter.lower():
            found = min(found, _first(self._of_peers, WILDCARD, source))
        return None if found == _NOWHERE else self.rules[found]

    def by_permission(self, rule: Intention, permission: Permission | None) -> Verdict:
        """What it means that this one of the rule's permissions, or none, decides; put into words once."""
        key = rule.origin, 0 if permission is None else permission.number  # a source's first rule decides
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
    return Incremental(read_match(answer, destination, default_allow=default_allow)).run_now()


def read_match(
    answer: Sequence[object] | None, destination: str, *, default_allow: bool, default_unknown: str = ""
) -> Work[Intentions]:
    """The same in pieces, with a rest after each: ten thousand intentions are a tenth of a second of work.

    A list that Consul gives for our name is for our name. The items are JSON (msgspec.Raw), or decoded.
    """
    rules: list[tuple[Order, Intention]] = []
    for place, raw in enumerate(answer or ()):
        if place % PIECE == PIECE - 1:
            yield
        try:
            rule = read_rule(read_item(raw), destination)
        except msgspec.DecodeError as error:
            detail = str(error).replace("`$", f"`$[{place}]")
            raise InvalidIntentions(f"intentions of {destination}: {detail}") from error
        if rule is not None:
            rules.append((deciding_order(rule), rule))
    rules.sort(key=itemgetter(0))
    ordered = tuple(rule for _, rule in rules)
    return Intentions(
        destination=destination,
        rules=ordered,
        default_allow=default_allow,
        default_unknown=default_unknown,
    )


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
    if rule.doubt:
        return Verdict(allowed=False, reason=VerdictReason.UNSUPPORTED_INTENTION, rule=str(rule))
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
    if intentions.default_unknown:
        rule = f"default policy (unknown: {intentions.default_unknown})"
        return Verdict(allowed=False, reason=VerdictReason.DEFAULT_UNKNOWN, rule=rule)
    return Verdict(allowed=False, reason=VerdictReason.DEFAULT_DENY, rule="default policy (deny)")


def _first(index: Mapping[Source, int], partition: str, source: ServiceId) -> int:
    """The lowest place of the rules that speak of the source."""
    return min(
        index.get((partition, source.namespace, source.service), _NOWHERE),
        index.get((partition, source.namespace, WILDCARD), _NOWHERE),
        index.get((partition, WILDCARD, source.service), _NOWHERE),
        index.get((partition, WILDCARD, WILDCARD), _NOWHERE),
    )
