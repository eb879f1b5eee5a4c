"""One request, read: as it was parsed, as the app would get it, and as the rules see it. No IO."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import h11

from agent.http_body import ChunkedBody, CountedBody, RequestBody
from agent.request_head import HeadReason, HeadRefused, check_head
from agent.request_headers import Fields, framing, request_fields, request_head, view
from agent.request_rules import HttpRequest
from agent.request_target import Target, parse_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that can be judged. `http` has parsed its head, and nothing that came after it.

    `head` is what the app would get: method, normal target and `fields`. `whole`: there is no body.
    `closes`: the caller wants its connection closed after the answer.
    """

    http: h11.Connection
    request: h11.Request
    target: Target
    fields: Fields
    head: bytes
    asked: HttpRequest
    body: RequestBody
    whole: bool
    closes: bool


def read_call(
    head: bytes, came: bytes, *, host: bytes, identity: bytes, judged: Callable[[], Collection[str]]
) -> Call:
    """Read a request's head and what came with it; raise HeadRefused or TargetRefused.

    `host` stands in for a Host that HTTP/1.0 may lack; `judged` names the headers that rules look at.
    """
    check_head(head)
    http, request = _parse(head)
    method = request.method.decode()
    if method == "CONNECT":
        raise HeadRefused(HeadReason.CONNECT, "no tunnels")
    plain = request.target.startswith(b"/")  # then it names no host that could differ
    target = parse_target(request.target, method, b"" if plain else dict(request.headers).get(b"host", b""))
    fields = request_fields(request, host, identity)
    length, chunked, closes = framing(request)
    return Call(
        http=http,
        request=request,
        target=target,
        fields=fields,
        head=request_head(request.method, target.sent, fields),
        asked=view(method, target, fields),
        body=ChunkedBody(http, came, judged()) if chunked else CountedBody(length, came),
        whole=not length and not chunked,
        closes=closes,
    )


def _parse(head: bytes) -> tuple[h11.Connection, h11.Request]:
    """h11 gets the head alone: this connection of its serves one request."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(head)
    try:
        request = http.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadRefused(HeadReason.UNREADABLE, str(error)) from error
    assert isinstance(request, h11.Request)  # a whole head is nothing else
    return http, request
