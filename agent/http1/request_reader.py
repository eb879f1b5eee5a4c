"""Reads one request: as it was parsed, as the app gets it, and as permissions judge it. No IO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent.http1.fields import LAST, UPGRADE, Framing, framing, header_values, request_fields, written
from agent.http1.head import FieldNames, Fields, HeadReason, HeadRefused, read_head, read_usual_line
from agent.http1.request import HttpRequest, Values
from agent.http1.request_body import ChunkedBody, CountedBody, RequestBody
from agent.http1.target import Target, parse_target
from agent.http1.usual_headers import Line, identity_line, read_usual_headers

_BODILESS = Framing(length=0, chunked=False, expects_continue=False, closes=False)
REMEMBERED = 2 * 1024  # bytes of headers that are kept at most for a caller's next request


@dataclass(slots=True, kw_only=True)
class ParsedRequest:
    """A request that can be judged. `head`: the bytes for the app; `http10`: a request of HTTP/1.0."""

    method: bytes
    raw_target: bytes  # as received
    http10: bool
    target: Target
    fields: Fields
    head: bytes
    request: HttpRequest
    body: RequestBody
    framing: Framing

    @property
    def bodiless(self) -> bool:
        """Whether there is no body."""
        return not self.framing.length and not self.framing.chunked

    @property
    def usual(self) -> bool:
        """Whether it keeps its connection, asks for nothing but its answer, and says how long its body is."""
        _, chunked, expects_continue, closes = self.framing
        return not (self.http10 or chunked or expects_continue or closes or self.upgrades)

    @property
    def upgrades(self) -> bool:
        """Whether a WebSocket is asked for."""
        return UPGRADE in self.fields


class _Headers(NamedTuple):
    """Headers as received, with the empty line, and everything that follows from them alone."""

    raw: bytes
    fields: Fields
    written: bytes
    values: Mapping[str, Values]
    framing: Framing
    lines: Mapping[bytes, Line]  # what is known of them one by one, for headers that differ in some


_NO_LINES: Mapping[bytes, Line] = {}


class RequestReader:
    """Reads one caller's requests.

    Callers repeat their headers from request to request. The reader keeps the last headers and what it made
    of them, and uses both again if exactly the same bytes come again, so that only the request line is new
    (HPACK of HTTP/2 rests on the same repetition). Of headers that differ in some lines only those are read
    (`usual_headers.py`). It keeps no headers that change how the body or connection
    is read (chunks, an upgrade, an expectation), none of HTTP/1.0, and no long ones. It never keeps a
    verdict.
    """

    def __init__(
        self,
        *,
        host: bytes,
        identity: bytes,
        judged: Callable[[], Collection[str]],
        names: FieldNames = FieldNames.PLAIN,
    ) -> None:
        """`host` is used where HTTP/1.0 lacks one; `judged` names the headers that permissions look at."""
        self._host = host
        self._names = names
        self._identity = identity
        self._judged = judged
        self._last: _Headers | None = None
        self._own = identity_line(identity) if identity and names is FieldNames.PLAIN else None

    def read(self, raw: bytes, came: bytes) -> ParsedRequest:
        """Read a head and the bytes that came with it. Raises HeadRefused, TargetRefused."""
        line, _, block = raw.partition(b"\r\n")
        usual = read_usual_line(line)
        if usual is not None:
            last = self._last
            headers = last if last is not None and last.raw == block else self._usual_headers(block)
            if headers is not None:
                return self._usual(came, *usual, headers)
        return self._anew(raw, came, line, block)

    def _usual_headers(self, block: bytes) -> _Headers | None:
        """Return headers that are read line by line; None if they have to be read with the whole head."""
        own, last = self._own, self._last
        if own is None:
            return None
        found = read_usual_headers(block, _NO_LINES if last is None else last.lines)
        if found is None:
            return None
        found.fields.append(own.field)
        found.values[own.folded] = own.values
        written = b"%b%b\r\n" % (found.written, own.written)
        headers = _Headers(block, found.fields, written, found.values, _BODILESS, found.lines)
        self._last = headers if len(block) <= REMEMBERED else None
        return headers

    def _usual(self, came: bytes, method: bytes, raw_target: bytes, last: _Headers) -> ParsedRequest:
        """Return a request of a usual line, with headers that were read before, or line by line."""
        target = parse_target(raw_target, method.decode(), b"")  # a path: it names no host that could differ
        return ParsedRequest(
            method=method,
            raw_target=raw_target,
            http10=False,
            target=target,
            fields=last.fields,
            head=b"%b %b HTTP/1.1\r\n%b" % (method, target.sent, last.written),
            request=HttpRequest(method=method.decode(), paths=target.readings, headers=last.values),
            body=CountedBody(last.framing.length, came),
            framing=last.framing,
        )

    def _anew(self, raw: bytes, came: bytes, line: bytes, block: bytes) -> ParsedRequest:
        head = read_head(raw, self._names)
        method = head.method.decode()
        if method == "CONNECT":
            raise HeadRefused(HeadReason.CONNECT, "no tunnels")
        target = parse_target(head.target, method, head.host)
        fields = request_fields(head, self._host, self._identity)
        framed = framing(head)
        if framed.length or framed.chunked:
            fields.append(LAST)
        headers = _Headers(block, fields, written(fields), header_values(fields), framed, _NO_LINES)
        self._last = headers if _repeatable(line, headers) else None
        body = (
            ChunkedBody(came, self._judged(), self._names)
            if framed.chunked
            else CountedBody(framed.length, came)
        )
        return ParsedRequest(
            method=head.method,
            raw_target=head.target,
            http10=head.minor == b"0",
            target=target,
            fields=fields,
            head=b"%b %b HTTP/1.1\r\n%b" % (head.method, target.sent, headers.written),
            request=HttpRequest(method=method, paths=target.readings, headers=headers.values),
            body=body,
            framing=framed,
        )


def _repeatable(line: bytes, headers: _Headers) -> bool:
    """Return whether these headers mean the same after any usual request line."""
    return (
        line.endswith(b" HTTP/1.1")
        and len(headers.raw) <= REMEMBERED
        and not headers.framing.chunked
        and not headers.framing.expects_continue
        and b"upgrade" not in headers.raw.lower()
    )
