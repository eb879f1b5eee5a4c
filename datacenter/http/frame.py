"""What all endpoints of Consul's HTTP API have in common, apart from any socket.

See docs/consul-api.md#requests.

A `Frame` turns a raw request into a raw reply: it finds the route, answers 404 and 405, parses the parameters
that all endpoints share, sends `?dc=` to the other datacenter, blocks on `?index=` or `?hash=`, and adds the
headers. It knows neither the server nor what the handlers do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from urllib.parse import parse_qs

import trio
from starlette.routing import compile_path

from datacenter.http.context import Datacenter, Empty, QueryMeta, Reply, Request, Route
from datacenter.state.durations import parse_duration
from datacenter.state.errors import ApiError

FORWARDED = "x-sidecar-forwarded-from"  # names the datacenter that forwarded this call
DEFAULT_WAIT = 300.0
LONGEST_WAIT = 600.0
TEXT = "text/plain; charset=utf-8"

_CACHE_ENTRIES = 1024
_MOST_DIGITS = 20  # of an index, a number of 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """An HTTP request: decoded path, undecoded query, header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """An HTTP reply; the server adds `Date` and `Content-Length`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _NoSuchPath(Exception):
    """No route has this path."""


class Answers(Protocol):
    """What a server needs of a frame, or of one in front of it."""

    @property
    def dc(self) -> Datacenter:
        """The datacenter of the frame."""
        ...

    async def handle(self, raw: RawRequest) -> RawReply:
        """Answer one request."""
        ...


class Frame:
    """All routes of one datacenter behind one call."""

    def __init__(self, dc: Datacenter, routes: Sequence[Route]) -> None:
        self._dc = dc
        self._paths: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        self._seen: dict[str, datetime] = {}
        for route in routes:
            methods = self._paths.setdefault(route.path, (compile_path(route.path)[0], {}))[1]
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} is registered twice")
            methods[route.method] = route

    @property
    def dc(self) -> Datacenter:
        """The datacenter of the frame."""
        return self._dc

    async def handle(self, raw: RawRequest) -> RawReply:
        """Answer one request. Only bugs and cancellation come out as exceptions."""
        common = {"Vary": "Accept-Encoding", "X-Consul-Default-Acl-Policy": self._dc.acl.default_policy}
        if self._dc.settings.translate_wan_addrs:
            common["X-Consul-Translate-Addresses"] = "true"
        try:
            reply = await self._dispatch(raw)
        except _NoSuchPath:
            return RawReply(status=404, headers={}, body=b"")  # without a text, as Go's server answers
        except ApiError as error:
            reply = Reply(value=error.text, status=error.status, content_type=TEXT, headers=error.headers)
        body, content_type = _encode(reply, pretty="pretty" in raw.query)
        headers = {**common, **reply.headers}
        if content_type:
            headers["Content-Type"] = content_type
        return RawReply(status=reply.status, headers=headers, body=body)

    async def _dispatch(self, raw: RawRequest) -> Reply:
        methods, params = self._match(raw.path)
        if raw.method == "OPTIONS":
            return Reply(headers={"Allow": _allow(methods)})
        route = methods.get(raw.method)
        if route is None:
            raise ApiError(405, f"method {raw.method} not allowed", {"Allow": _allow(methods)})
        with self._dc.tally.call(route.method, route.path):
            return await self._answer(raw, route, params)

    async def _answer(self, raw: RawRequest, route: Route, params: dict[str, str]) -> Reply:
        request = self._parse(raw, params)
        elsewhere = request.query.get("dc", "")
        if route.forwards and elsewhere not in {"", self._dc.settings.name}:
            reply = await self._dc.forwarder.forward(request, elsewhere)
            if route.translate and self._dc.settings.translate_wan_addrs and not request.forwarded:
                reply = replace(reply, value=route.translate(reply.value))
        else:
            reply = await self._block(route, request)
        headers = {**self._meta_headers(request, reply), **reply.headers}
        if route.cached and request.flag("cached"):
            headers.pop("Age", None)  # of the other datacenter's cache
            headers |= self._cache_headers(raw)
        return replace(reply, headers=headers)

    def _match(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        for pattern, methods in self._paths.values():
            if match := pattern.match(path):
                return methods, match.groupdict()
        raise _NoSuchPath

    def _parse(self, raw: RawRequest, params: dict[str, str]) -> Request:
        lists = parse_qs(raw.query, keep_blank_values=True)
        query = {name: values[0] for name, values in lists.items()}
        if "ns" in query:
            detail = 'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature'
            raise ApiError(400, f"Bad request: {detail}")
        wait = self._wait(query.get("wait", ""))
        index = query.get("index", "") or "0"
        if not (index.isascii() and index.isdigit() and len(index) <= _MOST_DIGITS):
            raise ApiError(400, "Invalid index")
        if "stale" in query and "consistent" in query:
            raise ApiError(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
        return Request(
            method=raw.method,
            path=raw.path,
            params=params,
            query=query,
            query_lists=lists,
            body=raw.body,
            token=_token(query, raw.headers),
            index=int(index),
            wait=wait,
            forwarded=FORWARDED in raw.headers,
            resolve=self._dc.acl.resolve,
        )

    def _wait(self, text: str) -> float:
        try:
            wait = parse_duration(text) if text else 0.0
        except ValueError:
            raise ApiError(400, "Invalid wait time") from None
        wait = min(wait, LONGEST_WAIT) if wait > 0 else DEFAULT_WAIT
        # With jitter, so that watchers that started together do not all return together.
        return wait + self._dc.rng.random() * wait / 16

    async def _block(self, route: Route, request: Request) -> Reply:
        deadline = trio.current_time() + request.wait
        while True:
            since = self._dc.store.index  # before the handler, so that no change during it is missed
            reply = await route.handler(request)
            remaining = deadline - trio.current_time()
            if remaining <= 0 or not self._unchanged(request, reply):
                return reply
            with self._dc.tally.holding():
                await self._dc.store.changed(reply.topics, since, remaining)

    def _unchanged(self, request: Request, reply: Reply) -> bool:
        if reply.final or not reply.topics:
            return False
        if reply.content_hash:
            return reply.content_hash == request.query.get("hash", "")
        return request.index > 0 and self._index(reply) <= request.index

    def _index(self, reply: Reply) -> int:
        index = self._dc.store.index_of(reply.topics) if reply.index is None else reply.index
        return max(index, 1)  # a client with index 0 would never block

    def _meta_headers(self, request: Request, reply: Reply) -> dict[str, str]:
        headers = {"X-Consul-Contenthash": reply.content_hash} if reply.content_hash else {}
        if reply.meta is QueryMeta.NONE:
            return headers
        headers["X-Consul-Index"] = str(self._index(reply))
        if reply.meta is QueryMeta.INDEX:
            return headers
        headers["X-Consul-Knownleader"] = "true" if reply.known_leader and not reply.streaming else "false"
        headers["X-Consul-Lastcontact"] = "0"
        headers["X-Consul-Query-Backend"] = "streaming" if reply.streaming else "blocking-query"
        if reply.meta is QueryMeta.CONSISTENT:
            stated = [name for name in ("stale", "consistent") if request.flag(name)]
            headers["X-Consul-Effective-Consistency"] = stated[0] if stated else "leader"
        return headers

    def _cache_headers(self, raw: RawRequest) -> dict[str, str]:
        """Return X-Cache as an agent shows it; nothing is cached, so a HIT is as fresh as a MISS."""
        key = f"{raw.path}?{raw.query}"
        if key in self._seen:
            return {"X-Cache": "HIT", "Age": "0"}
        if len(self._seen) >= _CACHE_ENTRIES:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = self._dc.clock()
        return {"X-Cache": "MISS"}


def _allow(methods: Mapping[str, Route]) -> str:
    special = next((route.allow for route in methods.values() if route.allow), "")
    return special or ",".join(["OPTIONS", *methods])


def token_of(raw: RawRequest) -> str:
    """Return the secret of a request."""
    lists = parse_qs(raw.query, keep_blank_values=True)
    return _token({name: values[0] for name, values in lists.items()}, raw.headers)


def _token(query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Return ?token=, else X-Consul-Token, else a bearer token; "" is the anonymous one.

    See docs/consul-api.md#requests.
    """
    bearer = re.fullmatch(r"(?i)bearer\s+(\S+)\s*", headers.get("authorization", ""))
    return query.get("token") or headers.get("x-consul-token") or (bearer.group(1) if bearer else "")


def _encode(reply: Reply, *, pretty: bool) -> tuple[bytes, str]:
    """Return body and content type. JSON is escaped as Go escapes it."""
    if reply.value is Empty.BODY:
        return b"", reply.content_type
    if reply.content_type:
        return (
            reply.value if isinstance(reply.value, bytes) else str(reply.value).encode()
        ), reply.content_type
    indent, separators = (4, (",", ": ")) if pretty else (None, (",", ":"))
    text = json.dumps(reply.value, ensure_ascii=False, indent=indent, separators=separators)
    # These characters occur inside strings only.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(), "application/json"
