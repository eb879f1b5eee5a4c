"""Which headers go on, and which end here: hop-by-hop ones, forged identities, what a Connection nominates.

The rules judge exactly the headers that are sent to the app, the caller's identity among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import h11

from agent.request_head import HeadReason, HeadRefused
from agent.request_rules import HttpRequest, Values, fold
from agent.request_target import Target
from certs.spiffe import ServiceId

IDENTITY = "X-Forwarded-Client-Cert"

Fields = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"}
    | {b"te", b"upgrade"}
)
# A Connection header may name what belongs to this hop. These belong to the request, and some apps decide by
# their absence.
_NOT_TO_NOMINATE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"cookie",
        b"expect",
    }
    | {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
    | {IDENTITY.lower().encode()}
)
# Spelled with an underscore, a gateway might take them for the real ones.
_NOT_TO_DISGUISE = frozenset({"content-length", "transfer-encoding", "host", "connection", "expect"})
_NOT_IN_TRAILERS = frozenset(
    {fold(name.decode()) for name in _HOP_BY_HOP | _NOT_TO_NOMINATE} | {"trailer", "set-cookie"}
)


def identity_value(own: ServiceId, caller: ServiceId) -> bytes:
    """The value of X-Forwarded-Client-Cert, in Envoy's form: who vouches, and who calls."""
    return f"By={_quoted(str(own))};URI={_quoted(str(caller))}".encode()


def request_fields(request: h11.Request, host: bytes, identity: bytes) -> Fields:
    """The headers the app gets. `host` stands in for a Host that HTTP/1.0 may lack. Raises HeadRefused."""
    nominated = _tokens(request.headers, b"connection")
    if taken := nominated & _NOT_TO_NOMINATE:
        raise HeadRefused(HeadReason.NOMINATED, f"Connection names {min(taken).decode()}")
    _check_expectation(request)
    fields: Fields = []
    for raw, value in request.headers.raw_items():
        name = raw.lower()
        folded = fold(name.decode())
        if b"_" in name and folded in _NOT_TO_DISGUISE:
            raise HeadRefused(HeadReason.DISGUISED, f"{raw.decode()} looks like {folded}")
        if name not in _HOP_BY_HOP and name not in nominated and folded != IDENTITY.lower():
            fields.append((raw, value))
    if not any(name.lower() == b"host" for name, _ in fields):
        fields.insert(0, (b"Host", host))
    if _upgrades(request, nominated):
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    fields.append((IDENTITY.encode(), identity))
    return fields


def view(method: str, target: Target, fields: Fields) -> HttpRequest:
    """What the rules look at."""
    headers: dict[str, Values] = {}
    for name, value in fields:
        folded = fold(name.decode())
        headers[folded] = (*headers.get(folded, ()), _text(value))
    return HttpRequest(method=method, paths=target.readings, headers=headers)


def response_fields(response: h11.Response | h11.InformationalResponse) -> Fields:
    """The headers the caller gets of an answer."""
    gone = _HOP_BY_HOP | _tokens(response.headers, b"connection")
    return [(raw, value) for raw, value in response.headers.raw_items() if raw.lower() not in gone]


def trailer_fields(end: h11.EndOfMessage, judged: Collection[str] = ()) -> Fields:
    """The trailers that go on. Not those a rule looks at: an app might take them for headers, unjudged."""
    return [
        (raw, value)
        for raw, value in end.headers.raw_items()
        if (folded := fold(raw.decode())) not in _NOT_IN_TRAILERS and folded not in judged
    ]


def _tokens(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> frozenset[bytes]:
    values = (value for name, value in headers if name == wanted)
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _check_expectation(request: h11.Request) -> None:
    expected = [value.lower() for name, value in request.headers if name == b"expect"]
    if expected and expected != [b"100-continue"]:
        raise HeadRefused(HeadReason.EXPECTATION, "Expect is not 100-continue")


def _upgrades(request: h11.Request, nominated: frozenset[bytes]) -> bool:
    """Whether a WebSocket is asked for. Nothing else is let through: h2c would be requests nobody judges."""
    asked = [value.lower() for name, value in request.headers if name == b"upgrade"]
    return (
        asked == [b"websocket"]
        and b"upgrade" in nominated
        and request.method == b"GET"
        and request.http_version == b"1.1"
        and not any(name in {b"content-length", b"transfer-encoding"} for name, _ in request.headers)
    )


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _quoted(uri: str) -> str:
    return f'"{uri}"' if any(mark in uri for mark in ",;=") else uri
