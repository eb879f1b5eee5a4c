"""Which headers are passed on, and which are removed: hop-by-hop, forged or nominated by Connection.

The permissions judge exactly the headers that are sent to the app, the caller's identity among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import h11

from agent.http1.head import Fields, HeadReason, HeadRefused, RequestHead, are_fields
from agent.http1.request import OVERRIDING, HttpRequest, Values, fold
from agent.http1.target import Target
from certs.spiffe import ServiceId

IDENTITY = "X-Forwarded-Client-Cert"

UPGRADE = (b"Upgrade", b"websocket")
LAST = (b"Connection", b"close")  # of the requests on a connection to the app (`app_connection.py`)
SWITCH: Fields = [(b"Connection", b"Upgrade"), UPGRADE]  # to WebSocket, the only protocol to switch to

_REMEMBERED = 512  # header names whose reading is cached: callers repeat the same ones
_SHORT = 64  # bytes of the longest name in the cache
_MOST_NOMINATED = 1024  # bytes of all Connection headers

# Names in here are folded (`request.fold`).
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"}
    | {"te", "upgrade"}
)
# A Connection header may nominate headers of this hop. The headers below belong to the request, and some apps
# decide by their absence.
_NOT_TO_NOMINATE = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "authorization", "cookie", "expect"}
    | {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
    | {IDENTITY.lower()}
)
# Only where underscores are allowed. With an underscore in its name a header could pass for one of these, or
# for a variable of RFC 3875 §4.1 that a gateway sets about the request (gunicorn takes SCRIPT_NAME so).
_NOT_TO_DISGUISE = frozenset(
    {"content-length", "content-type", "transfer-encoding", "host", "connection", "expect"}
    | {"auth-type", "gateway-interface", "path-info", "path-translated", "query-string", "remote-addr"}
    | {"remote-host", "remote-ident", "remote-user", "request-method", "request-uri", "script-filename"}
    | {"script-name", "server-name", "server-port", "server-protocol", "server-software", "document-root"}
)
_NOT_IN_TRAILERS = _HOP_BY_HOP | _NOT_TO_NOMINATE | _NOT_TO_DISGUISE | OVERRIDING | {"trailer", "set-cookie"}

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class HeaderName(NamedTuple):
    """A header's name, and what it means. `gone`: the header never reaches the app."""

    lower: bytes
    folded: str
    gone: bool
    disguised: bool


def header_name(raw: bytes) -> HeaderName:
    """Read a header's name; short names are cached."""
    return _remembered(raw) if len(raw) <= _SHORT else _read_name(raw)


def _read_name(raw: bytes) -> HeaderName:
    lower = raw.lower()
    folded = fold(lower.decode())
    return HeaderName(
        lower=lower,
        folded=folded,
        gone=folded in _HOP_BY_HOP or folded == IDENTITY.lower(),
        disguised=b"_" in lower and folded in _NOT_TO_DISGUISE,
    )


_remembered = lru_cache(maxsize=_REMEMBERED)(_read_name)


class Framing(NamedTuple):
    """How a request's body is framed, and whether the caller ends its connection after the answer.

    `expects_continue`: the caller may hold the body back until it is asked for it (`Expect: 100-continue`).
    """

    length: int
    chunked: bool
    expects_continue: bool
    closes: bool


def framing(head: RequestHead) -> Framing:
    """Return the framing that the headers announce."""
    length, chunked, expects_continue, closes = 0, False, False, head.minor == b"0"
    for raw, value in head.fields:
        lower = header_name(raw).lower
        if lower == b"content-length":
            length = int(value)
        elif lower == b"transfer-encoding":
            chunked = True
        elif lower == b"expect":
            expects_continue = True
        elif lower == b"connection":
            closes = closes or "close" in _split(value)
    return Framing(length, chunked, expects_continue, closes)


def written(fields: Fields) -> bytes:
    """Return headers as bytes with the empty line. Raises HeadRefused where they break the grammar."""
    block = b"".join([b"%b: %b\r\n" % field for field in fields])
    if not are_fields(block, len(fields)):
        raise HeadRefused(HeadReason.UNREADABLE, "a line end or a control character within a header")
    return block + b"\r\n"


def identity_value(own: ServiceId, caller: ServiceId) -> bytes:
    """Return the value of X-Forwarded-Client-Cert in Envoy's form: `By` is ours, `URI` is the caller."""
    return f"By={_quoted(str(own))};URI={_quoted(str(caller))}".encode()


def request_fields(head: RequestHead, host: bytes, identity: bytes) -> Fields:
    """Return the headers for the app. `host` is used where HTTP/1.0 lacks a Host. Raises HeadRefused.

    `identity`: of the caller; empty where callers have none, and then the app gets no such header.
    """
    items = [(header_name(raw), raw, value) for raw, value in head.fields]
    names = {name.lower for name, _, _ in items}
    nominated = _to_end_here(head.fields) if b"connection" in names else frozenset()
    if b"expect" in names and _all(head.fields, b"expect") != [b"100-continue"]:
        raise HeadRefused(HeadReason.EXPECTATION, "Expect is not 100-continue")
    fields: Fields = []
    for name, raw, value in items:
        if name.disguised:
            raise HeadRefused(HeadReason.DISGUISED, f"{raw.decode()} looks like {name.folded}")
        if not name.gone and name.folded not in nominated:
            fields.append((raw, _as_written(name.lower, value) if name.lower in _FRAMING else value))
    if b"host" not in names:  # Connection may not nominate Host
        fields.insert(0, (b"Host", host))
    if b"upgrade" in names and _upgrades(head, nominated, names):
        fields += SWITCH
    if identity:
        fields.append((IDENTITY.encode(), identity))
    return fields


def view(method: str, target: Target, fields: Fields) -> HttpRequest:
    """Return the view of a request that permissions judge."""
    return HttpRequest(method=method, paths=target.readings, headers=header_values(fields))


def header_values(fields: Fields) -> Mapping[str, Values]:
    """Return the header values that permissions judge, by folded name."""
    headers: dict[str, Values] = {}
    for name, value in fields:
        folded = header_name(name).folded
        headers[folded] = (*headers[folded], text(value)) if folded in headers else (text(value),)
    return headers


def response_fields(response: h11.Response | h11.InformationalResponse) -> Fields:
    """Return the headers of an answer for the caller; h11 has checked its framing."""
    gone = _HOP_BY_HOP | _nominated(response.headers)
    items = [(header_name(raw), raw, value) for raw, value in response.headers.raw_items()]
    return [
        (raw, _as_written(name.lower, value) if name.lower in _FRAMING else value)
        for name, raw, value in items
        if name.folded not in gone
    ]


def trailer_fields(trailers: Fields, judged: Collection[str] = ()) -> Fields:
    """Return the trailers to pass on, without those in `judged`: an app might take these for headers."""
    return [
        (raw, value)
        for raw, value in trailers
        if (folded := header_name(raw).folded) not in _NOT_IN_TRAILERS and folded not in judged
    ]


def _all(fields: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """Return the values of a header in lower case."""
    return [value.lower() for raw, value in fields if header_name(raw).lower == wanted]


def _as_written(name: bytes, value: bytes) -> bytes:
    """Return a Content-Length or Transfer-Encoding in the one spelling that all readers agree on."""
    return value.lower() if name == b"transfer-encoding" else b"%d" % int(value)


def _to_end_here(fields: Fields) -> frozenset[str]:
    """Return the names in a request's Connection headers; raise HeadRefused for one it may not nominate."""
    if sum(map(len, _all(fields, b"connection"))) > _MOST_NOMINATED:
        raise HeadRefused(HeadReason.TOO_LARGE, f"Connection is over {_MOST_NOMINATED} bytes")
    nominated = _nominated(fields)
    if taken := nominated & _NOT_TO_NOMINATE:
        raise HeadRefused(HeadReason.NOMINATED, f"Connection names {min(taken)}")
    return nominated


def _nominated(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[str]:
    """Return the names in Connection headers, folded."""
    return frozenset().union(*map(_split, _all(fields, b"connection")))


def _split(value: bytes) -> frozenset[str]:
    return frozenset(fold(token.strip().decode("latin-1")) for token in value.split(b","))


def _upgrades(head: RequestHead, nominated: frozenset[str], names: set[bytes]) -> bool:
    """Return whether a WebSocket is asked for.

    Other upgrades are dropped: requests in h2c would go unjudged.
    """
    return (
        _all(head.fields, b"upgrade") == [b"websocket"]
        and "upgrade" in nominated
        and head.method == b"GET"
        and head.minor == b"1"
        and not names & _FRAMING
    )


def text(value: bytes) -> str | None:
    """Return a header's value as permissions judge it; None if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _quoted(uri: str) -> str:
    return f'"{uri}"' if any(mark in uri for mark in ",;=") else uri
