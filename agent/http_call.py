"""One request, read: as it was parsed, as the app would get it, and as the rules see it. No IO."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import h11

from agent.http_body import ChunkedBody, CountedBody, RequestBody
from agent.request_head import HeadReason, HeadRefused, check_head, read_usual_line
from agent.request_headers import Fields, Framing, framing, header_values, request_fields, written
from agent.request_rules import HttpRequest, Values
from agent.request_target import Target, parse_target

REMEMBERED = 2 * 1024  # bytes of headers that are worth keeping for a caller's next request


@dataclass(slots=True, kw_only=True)
class Call:
    """A request that can be judged. `raw` is its head as it came, `head` as the app would get it.

    `waits`: the body may be held back until it is asked for. `closes`: the caller wants its connection closed
    after the answer.
    """

    raw: bytes
    method: bytes
    asked_for: bytes  # the target as it came
    target: Target
    fields: Fields
    head: bytes
    asked: HttpRequest
    body: RequestBody
    framing: Framing
    _parsed: h11.Connection | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        """Whether there is no body."""
        return not self.framing.length and not self.framing.chunked

    @property
    def http(self) -> h11.Connection:
        """h11's side towards the caller, which has parsed the head and nothing that came after it."""
        if self._parsed is None:
            self._parsed = _parse(self.raw)[0]
        return self._parsed


class _Headers(NamedTuple):
    """Headers as they came, empty line included, and all that follows from them alone."""

    raw: bytes
    fields: Fields
    written: bytes
    values: Mapping[str, Values]
    framing: Framing


class CallReader:
    """Reads one caller's requests.

    Callers repeat their headers, request after request. Those of the last one are kept, and what was made of
    them is taken again if the very same bytes come again (HTTP/2 builds its compression on that). Only its
    request line is new then. Not kept: headers that mean more than themselves (chunks, an upgrade, an
    expectation), those of HTTP/1.0, and long ones. The verdict is never kept.
    """

    def __init__(self, *, host: bytes, identity: bytes, judged: Callable[[], Collection[str]]) -> None:
        """`host` stands in for one that HTTP/1.0 may lack; `judged` names the headers that rules look at."""
        self._host = host
        self._identity = identity
        self._judged = judged
        self._last: _Headers | None = None

    def read(self, head: bytes, came: bytes) -> Call:
        """Read a request's head and what came with it; raise HeadRefused or TargetRefused."""
        line, _, block = head.partition(b"\r\n")
        if self._last is not None and self._last.raw == block:
            usual = read_usual_line(line)
            if usual is not None:
                return self._again(head, came, *usual, self._last)
        return self._anew(head, came, line, block)

    def _again(self, head: bytes, came: bytes, method: bytes, asked_for: bytes, last: _Headers) -> Call:
        """The same headers with another line, or the same."""
        target = parse_target(asked_for, method.decode(), b"")  # a path: it names no host that could differ
        return Call(
            raw=head,
            method=method,
            asked_for=asked_for,
            target=target,
            fields=last.fields,
            head=b"%b %b HTTP/1.1\r\n%b" % (method, target.sent, last.written),
            asked=HttpRequest(method=method.decode(), paths=target.readings, headers=last.values),
            body=CountedBody(last.framing.length, came),
            framing=last.framing,
        )

    def _anew(self, head: bytes, came: bytes, line: bytes, block: bytes) -> Call:
        check_head(head)
        http, request = _parse(head)
        method = request.method.decode()
        if method == "CONNECT":
            raise HeadRefused(HeadReason.CONNECT, "no tunnels")
        target = parse_target(request.target, method, dict(request.headers).get(b"host", b""))
        fields = request_fields(request, self._host, self._identity)
        framed = framing(request)
        headers = _Headers(block, fields, written(fields), header_values(fields), framed)
        self._last = headers if _repeatable(line, headers) else None
        body = ChunkedBody(http, came, self._judged()) if framed.chunked else CountedBody(framed.length, came)
        return Call(
            raw=head,
            method=request.method,
            asked_for=request.target,
            target=target,
            fields=fields,
            head=b"%b %b HTTP/1.1\r\n%b" % (request.method, target.sent, headers.written),
            asked=HttpRequest(method=method, paths=target.readings, headers=headers.values),
            body=body,
            framing=framed,
            _parsed=http,
        )


def _repeatable(line: bytes, headers: _Headers) -> bool:
    """Whether the same headers mean the same with any usual request line before them."""
    return (
        line.endswith(b" HTTP/1.1")
        and len(headers.raw) <= REMEMBERED
        and not headers.framing.chunked
        and not headers.framing.waits
        and b"upgrade" not in headers.raw.lower()
    )


def _parse(head: bytes) -> tuple[h11.Connection, h11.Request]:
    """h11 gets the head alone: this connection of its serves one request. Raises HeadRefused."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(head)
    try:
        request = http.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadRefused(HeadReason.UNREADABLE, str(error)) from error
    assert isinstance(request, h11.Request)  # a whole head is nothing else
    return http, request
