"""The verdict on a caller or a request: everything that decides about it, in one evaluation.

Consul's intentions come first, by precedence, then its default policy. Calls that they allow may be narrowed
by datacenter (`narrowing.py`), through an intention's Meta or our settings; a narrowing never allows
anything. Intentions that Consul has not confirmed for too long allow nothing. Audit comes last, and allows
everything.

There are three questions: `authorize` about a connection whose bytes are relayed unread, `authorize_caller`
about one whose requests are judged one by one, `authorize_request` about one such request. A caller or
request that cannot be judged is denied, with that reason. The age of the intentions is no part of the policy,
since it changes while nothing else does: the caller of each function passes since when they are too old
(`agent.base.freshness`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from agent.http1.request import OVERRIDING, HttpRequest
from agent.policy.intention import Effect, Intention, Source
from agent.policy.intentions import Intentions
from agent.policy.narrowing import Narrowing
from agent.policy.permissions import Permission, Unreadable
from certs.spiffe import ServiceId


class VerdictReason(StrEnum):
    """The reason of a verdict."""

    INTENTION_ALLOW = "intention_allow"
    INTENTION_DENY = "intention_deny"
    INTENTION_BY_REQUEST = "intention_by_request"
    UNSUPPORTED_INTENTION = "unsupported_intention"
    DEFAULT_ALLOW = "default_allow"
    DEFAULT_DENY = "default_deny"
    DEFAULT_UNKNOWN = "default_unknown"  # Consul's header allows by default, and its own answer is missing
    PERMISSION_ALLOW = "permission_allow"
    PERMISSION_DENY = "permission_deny"
    UNSUPPORTED_PATTERN = "unsupported_pattern"
    UNSUPPORTED_PERMISSION = "unsupported_permission"
    NARROWED = "narrowed_by_datacenter"
    INTENTIONS_TOO_OLD = "intentions_too_old"  # by intentions_max_age, whatever the intentions say
    OVERRIDING_HEADER = "overriding_header"  # the app may take the request for another one than was judged


_DECIDED = {
    Effect.ALLOW: VerdictReason.INTENTION_ALLOW,
    Effect.DENY: VerdictReason.INTENTION_DENY,
    Effect.BY_REQUEST: VerdictReason.INTENTION_BY_REQUEST,
}
_UNREADABLE = {
    Unreadable.PATTERN: VerdictReason.UNSUPPORTED_PATTERN,
    Unreadable.PERMISSION: VerdictReason.UNSUPPORTED_PERMISSION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision about one caller or request; `rule`: the deciding rule, for a person.

    `intention`: the ID of that rule, where Consul answers one. `audited`: the reason denies, and audit mode
    allows the call all the same.
    """

    allowed: bool
    reason: VerdictReason
    rule: str
    audited: bool = False
    intention: str = ""


class _Worded:  # both are derived, so they are no fields: neither compared nor sent to another process
    __slots__ = ("_taken", "_verdicts")

    _verdicts: dict[tuple[Source, int], Verdict]
    _taken: dict[ServiceId, dict[tuple[object, ...], Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(_Worded):
    """What decides about our callers: Consul's intentions, our settings' narrowings, audit, our datacenter.

    `datacenter` is our own, empty while unknown. With `audit` a call that would be denied is allowed, and its
    verdict says so.
    """

    intentions: Intentions
    narrowings: tuple[Narrowing, ...] = ()
    datacenter: str = ""
    audit: bool = False

    def __post_init__(self) -> None:
        """Make the cache of verdicts on requests."""
        object.__setattr__(self, "_verdicts", {})
        object.__setattr__(self, "_taken", {})

    @property
    def narrows(self) -> bool:
        """Whether any narrowing applies to callers."""
        return bool(self.narrowings) or self.intentions.narrows

    def deciding(self, source: ServiceId) -> Intention | None:
        """Return the rule that decides about the source; None leaves it to the default policy."""
        return self.intentions.deciding(source, self.datacenter)

    def taken(self, source: ServiceId) -> dict[tuple[object, ...], Verdict]:
        """Return the table of verdicts taken on that caller's requests, which its reader fills and bounds."""
        return self._taken.setdefault(source, {})

    def by_permission(self, rule: Intention, permission: Permission | None) -> Verdict:
        """Return the verdict when this permission of the rule decides, or None of them; cached."""
        key = rule.origin, 0 if permission is None else permission.number  # a source's first rule decides
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = _by_permission(self.intentions, rule, permission)
        return verdict


def authorize(policy: Policy, source: ServiceId, too_old_since: datetime | None) -> Verdict:
    """Return the verdict on a connection that may carry any bytes; permissions deny such a connection.

    The source's trust domain must have been checked before: intentions ignore it.
    """
    return _settled(policy, source, _of_connection(policy, source), too_old_since)


def authorize_caller(policy: Policy, source: ServiceId, too_old_since: datetime | None) -> Verdict:
    """Return the verdict on a connection whose requests are then judged one by one."""
    verdict = _of_connection(policy, source)
    allowed = verdict.allowed or verdict.reason is VerdictReason.INTENTION_BY_REQUEST
    return _settled(policy, source, replace(verdict, allowed=allowed), too_old_since)


def authorize_request(
    policy: Policy, source: ServiceId, request: HttpRequest, too_old_since: datetime | None
) -> Verdict:
    """Return the verdict on a request.

    Where the deciding intention has permissions and none matches, the default policy decides, not an
    intention of lower precedence.
    """
    return _settled(policy, source, _of_request(policy, source, request), too_old_since)


def _of_connection(policy: Policy, source: ServiceId) -> Verdict:
    rule = policy.deciding(source)
    if rule is None:
        return _by_default(policy.intentions)
    if rule.doubt:
        return _by(rule, VerdictReason.UNSUPPORTED_INTENTION)
    return _by(rule, _DECIDED[rule.effect], allowed=rule.effect is Effect.ALLOW)


def _of_request(policy: Policy, source: ServiceId, request: HttpRequest) -> Verdict:
    rule = policy.deciding(source)
    if rule is None or rule.permissions is None:
        return _of_connection(policy, source)
    if rule.permissions.unreadable is not None:
        reason = _UNREADABLE[rule.permissions.unreadable]
        return _by(rule, reason, rule.permissions.detail)
    if overriding := OVERRIDING & request.headers.keys():
        detail = f"{min(overriding)} would change the request after it was judged"
        return _by(rule, VerdictReason.OVERRIDING_HEADER, detail)
    return policy.by_permission(rule, rule.permissions.first(request))


def _by_permission(intentions: Intentions, rule: Intention, permission: Permission | None) -> Verdict:
    if permission is None:
        verdict = _by_default(intentions)
        text = f"{rule}, no permission matches, {verdict.rule}"
        return replace(verdict, rule=text, intention=rule.id)
    reason = VerdictReason.PERMISSION_ALLOW if permission.allow else VerdictReason.PERMISSION_DENY
    return _by(rule, reason, str(permission), allowed=permission.allow)


def _by(rule: Intention, reason: VerdictReason, detail: str = "", *, allowed: bool = False) -> Verdict:
    text = f"{rule}, {detail}" if detail else str(rule)
    return Verdict(allowed=allowed, reason=reason, rule=text, intention=rule.id)


def _settled(policy: Policy, source: ServiceId, verdict: Verdict, too_old_since: datetime | None) -> Verdict:
    """Return the final verdict: age and narrowings deny further calls, and audit allows every call."""
    if too_old_since is not None:
        rule = f"intentions are too old since {too_old_since.isoformat()} (intentions_max_age)"
        verdict = Verdict(allowed=False, reason=VerdictReason.INTENTIONS_TOO_OLD, rule=rule)
    elif verdict.allowed and policy.narrows:
        verdict = _narrowed(policy, source, verdict)
    if policy.audit and not verdict.allowed:
        return replace(verdict, allowed=True, audited=True)
    return verdict


def _narrowed(policy: Policy, source: ServiceId, verdict: Verdict) -> Verdict:
    """Return the verdict, or a denial if the rule or our settings exclude the caller's datacenter or ours."""
    rule = policy.deciding(source)
    for narrowing in (*(rule.narrowings if rule else ()), *policy.narrowings):
        if narrowing.covers(source.service):
            objection = narrowing.objection(source.datacenter, policy.datacenter)
            if objection:
                detail = f"{verdict.rule}, {objection}"
                return replace(verdict, allowed=False, reason=VerdictReason.NARROWED, rule=detail)
    return verdict


def _by_default(intentions: Intentions) -> Verdict:
    if intentions.default_allow:
        return Verdict(allowed=True, reason=VerdictReason.DEFAULT_ALLOW, rule="default policy (allow)")
    if intentions.default_unknown:
        rule = f"default policy (unknown: {intentions.default_unknown})"
        return Verdict(allowed=False, reason=VerdictReason.DEFAULT_UNKNOWN, rule=rule)
    return Verdict(allowed=False, reason=VerdictReason.DEFAULT_DENY, rule="default policy (deny)")
