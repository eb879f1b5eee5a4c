"""Explains a verdict, in the terms of the connection log. No effects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from agent.http1.fields import view
from agent.http1.request import HttpRequest
from agent.http1.target import TargetRefused, parse_target
from agent.policy.authorize import Policy, Verdict, authorize, authorize_request
from agent.policy.deny_list import DenyList
from agent.policy.http_mode import HttpMode
from certs.spiffe import InvalidSpiffeId, ServiceId, TrustDomain, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May this source call, with this certificate (empty: any), and make this request (None: none)?"""

    source: ServiceId
    serial: str = ""
    request: HttpRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a verdict rests on. The texts name the origins, for a person.

    `http` is None if it is not known whether the destination reads HTTP. `too_old_since`: since when the
    intentions have not been confirmed for too long. `travel`: whether the call is a stream of a tunnel.
    """

    policy: Policy
    default_origin: str
    replica: str
    deny_list: DenyList
    deny_origin: str = ""
    http: HttpMode | None = None
    too_old_since: datetime | None = None
    travel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The verdict, and the page that shows how it came about."""

    allowed: bool
    reason: str
    lines: tuple[str, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """The page as text."""
        return "\n".join(self.lines)


def explain(question: Question, evidence: Evidence) -> Explanation:
    """Judge as the agent would; return the verdict with the rules that led to it."""
    source, policy = question.source, evidence.policy
    denied = evidence.deny_list.entry_of(source)
    if not denied and question.serial:
        denied = evidence.deny_list.entry_of_serial(source, question.serial)
    verdict = _verdict(question, evidence)
    allowed = verdict.allowed and not denied
    reason = "deny_listed" if denied else verdict.reason.value
    said = "allowed" if allowed else "denied"
    audited = " (audit: would be denied, is let through)" if verdict.audited and not denied else ""
    into = f"@{policy.datacenter}" if policy.datacenter else ""
    lines = (
        f"{said}: {source.service}@{source.datacenter} => {policy.intentions.destination}{into}{audited}",
        _row("source", str(source)),
        _row("reason", reason),
        _row("rule", denied or verdict.rule),
        *_basis(question, evidence),
        *_list(question, evidence),
    )
    return Explanation(allowed=allowed, reason=reason, lines=lines)


def _verdict(question: Question, evidence: Evidence) -> Verdict:
    unread = evidence.http in {HttpMode.NEVER, HttpMode.UNSUPPORTED}
    if question.request is None or unread:
        return authorize(evidence.policy, question.source, evidence.too_old_since)
    return authorize_request(evidence.policy, question.source, question.request, evidence.too_old_since)


def _basis(question: Question, evidence: Evidence) -> Iterator[str]:
    policy, intentions = evidence.policy, evidence.policy.intentions
    rule = policy.deciding(question.source)
    yield _row("precedence", "none matches: the default" if rule is None else str(rule.precedence))
    origins = filter(None, (evidence.default_origin, intentions.default_origin))
    yield _row("default", ", ".join((intentions.default, *origins)))
    yield _row("replica", evidence.replica)
    if rule is not None and rule.permissions is not None:
        yield _row("requests", _of_requests(question, evidence))
    if evidence.deny_origin:
        yield _row("deny list", f"{evidence.deny_origin}, {len(evidence.deny_list)} entries")
    if policy.narrowings:
        yield _row("narrowed", f"by our settings to {' '.join(map(str, policy.narrowings))}")
    if evidence.travel:
        yield _row("travel", evidence.travel)
    if policy.audit:
        yield _row("audit", "on: what intentions deny is logged and let through")


def _of_requests(question: Question, evidence: Evidence) -> str:
    if evidence.http in {HttpMode.NEVER, HttpMode.UNSUPPORTED}:
        return "this destination does not read HTTP: permissions deny the whole connection"
    if question.request is None:
        return "each is judged by itself where the protocol is http: give -method and -path"
    if evidence.http is None:
        return "judged so where the destination's protocol is http; else the connection is denied"
    return "each is judged by itself"


def _list(question: Question, evidence: Evidence) -> Iterator[str]:
    """Yield the rules in deciding order, with the permissions of those that have some."""
    rules = evidence.policy.intentions.rules
    yield _row("rules", "in deciding order" if rules else "none")
    deciding = evidence.policy.deciding(question.source)
    for rule in rules:
        yield f"  {'->' if rule is deciding else '  '} {rule}"
        if rule.permissions is not None:
            said = [rule.permissions.detail] if rule.permissions.unreadable else rule.permissions.rules
            yield from (f"       {permission}" for permission in said)


def _row(name: str, text: str) -> str:
    return f"{name:11} {text}"


UNKNOWN_DOMAIN = "unknown"


_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")


_SERIAL = re.compile(r"[0-9a-fA-F:]*[0-9a-fA-F]")


class InvalidInquiry(ValueError):
    """The question cannot be understood; the text says what to write."""


class Inquiry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flags of the command as given; empty means not given."""

    source: str
    destination: str = ""
    method: str = ""
    path: str = ""
    serial: str = ""
    headers: tuple[str, ...] = ()


def question_of(inquiry: Inquiry, trust_domain: str, datacenter: str) -> Question:
    """Read the question; trust domain and datacenter of the source default to ours. Raises InvalidInquiry."""
    if inquiry.serial and not _SERIAL.fullmatch(inquiry.serial):
        raise InvalidInquiry(f"-serial {inquiry.serial!r} is not hexadecimal")
    source = _source(inquiry.source, trust_domain, datacenter)
    return Question(source=source, serial=inquiry.serial, request=_request(inquiry))


def _source(text: str, trust_domain: str, datacenter: str) -> ServiceId:
    if not text:
        raise InvalidInquiry("say who calls: -source SERVICE[@DC]")
    try:
        if "://" in text:
            identity = parse(text)
            if not isinstance(identity, ServiceId):
                raise InvalidInquiry(f"-source {text!r} is not the identity of a service")
            return identity
        service, _, named = text.partition("@")
        domain = TrustDomain.parse(trust_domain or UNKNOWN_DOMAIN)
        return ServiceId(trust_domain=domain, datacenter=named or datacenter, service=service)
    except InvalidSpiffeId as error:
        raise InvalidInquiry(
            f"-source {text!r}: write SERVICE, SERVICE@DC or a SPIFFE ID ({error})"
        ) from error


def _request(inquiry: Inquiry) -> HttpRequest | None:
    if not inquiry.method and not inquiry.path and not inquiry.headers:
        return None
    method, path = inquiry.method or "GET", inquiry.path or "/"
    fields = []
    for header in inquiry.headers:
        parts = _HEADER.fullmatch(header)
        if parts is None:
            raise InvalidInquiry(f"-header {header!r}: write 'Name: value'")
        fields.append((parts[1].encode(), parts[2].strip().encode()))
    if not _METHOD.fullmatch(method) or not re.fullmatch(r"[\x21-\x7e]+", path):
        raise InvalidInquiry("-method is one word, -path visible ASCII, as in a request line")
    try:
        target = parse_target(path.encode(), method, b"")
    except TargetRefused as refusal:
        raise InvalidInquiry(f"-path {path!r} is refused whatever the rules say: {refusal}") from refusal
    return view(method, target, fields)
