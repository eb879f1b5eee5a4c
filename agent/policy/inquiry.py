"""What `sidecar explain` is asked: texts, on their way to the agent too, and read into a question."""

from __future__ import annotations

import re

import msgspec

from agent.http1.fields import view
from agent.http1.target import TargetRefused, parse_target
from agent.policy.explain import Question
from agent.policy.http_match import HttpRequest
from certs.spiffe import InvalidSpiffeId, ServiceId, TrustDomain, parse

UNKNOWN_DOMAIN = "unknown"

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")
_SERIAL = re.compile(r"[0-9a-fA-F:]*[0-9a-fA-F]")


class InvalidInquiry(ValueError):
    """A question that cannot be understood; the text says what to write."""


class Inquiry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flags of the command, as they were given; empty is not given."""

    source: str
    destination: str = ""
    method: str = ""
    path: str = ""
    serial: str = ""
    headers: tuple[str, ...] = ()


def question_of(inquiry: Inquiry, trust_domain: str, datacenter: str) -> Question:
    """Read it. What the source does not say is ours; raise InvalidInquiry."""
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
