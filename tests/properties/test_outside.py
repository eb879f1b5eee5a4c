"""Whatever Consul answers, by whatever endpoint: a named failure of that one watch, or a usable value.

A good answer comes first and last; between them stands the hostile one. The watch goes on in the end, the
last good value is never lost, and what is published can be told to workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from agent.base.watch_status import WatchStatus
from agent.config.registration import Registration
from agent.consul.api import Consul
from agent.consul.http import Client
from agent.consul.token import TokenSource
from agent.consul.watch import Watch
from agent.control.watches import (
    endpoints_watch,
    intentions_watch,
    leaf_watch,
    registration_watch,
    roots_watch,
    source_intentions_watch,
)
from agent.policy.authorize import Policy
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import SourceIntentions
from agent.workers.messages import (
    HandedCredentials,
    HandedEndpoints,
    Message,
    decode,
    encode,
    roots_answer_of,
)
from certs.bundle import TrustBundle
from tests.certs.authority import Issuer, roots_answer
from tests.properties.mutations import mutated, places
from tests.properties.test_answers import HEALTH, QUERY
from tests.support.agent_parts import proxy_answer
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, QueryDestination, ServiceDestination

ROOT = Issuer.root()
DEEP = "a value nested as deep as is said"
UPSTREAM = {"DestinationName": "db", "LocalBindPort": 9191, "Config": {"limits": {"max_connections": 5}}}
RULE = {
    "SourceName": "a",
    "SourceNS": "default",
    "SourceType": "consul",
    "Action": "allow",
    "Precedence": 9,
    "DestinationName": "web",
    "DestinationNS": "default",
    "Meta": {"source-datacenters": "dc1"},
}
CALLING = {**RULE, "SourceName": "web", "DestinationName": "db", "Action": "deny"}
DB = ServiceDestination("db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One watch, and what a good answer to it is."""

    watch: Callable[[Consul, Callable[[Any], None]], Watch[Any, Any]]
    good: Any


ENDPOINTS = {
    "registration": Endpoint(
        watch=lambda consul, publish: registration_watch(consul, "web-sidecar-proxy", publish),
        good=proxy_answer(UPSTREAM, Meta={}, Tags=None),
    ),
    "roots": Endpoint(watch=roots_watch, good=roots_answer(ROOT)),
    "leaf": Endpoint(
        watch=lambda consul, publish: leaf_watch(consul, "web", publish), good=ROOT.leaf().answer()
    ),
    "intentions": Endpoint(
        watch=lambda consul, publish: intentions_watch(consul, "web", publish), good={"web": [RULE]}
    ),
    "outgoing": Endpoint(
        watch=lambda consul, publish: source_intentions_watch(consul, "web", publish), good={"web": [CALLING]}
    ),
    "health": Endpoint(watch=lambda consul, publish: endpoints_watch(consul, DB, publish), good=HEALTH),
    "gateways": Endpoint(
        watch=lambda consul, publish: endpoints_watch(consul, Gateways("dc2"), publish), good=HEALTH
    ),
    "query": Endpoint(
        watch=lambda consul, publish: endpoints_watch(consul, QueryDestination("q"), publish), good=QUERY
    ),
}


def response(body: bytes, *headers: bytes) -> bytes:
    """As it is on the wire; the length is the body's, unless a header says otherwise."""
    stated = any(header.lower().startswith(b"content-length:") for header in headers)
    length = () if stated else (b"Content-Length: %d" % len(body),)
    return b"\r\n".join((b"HTTP/1.1 200 OK", *length, *headers, b"", b"")) + body


class Server:
    """Answers each question with the next of these, and with the last for ever."""

    def __init__(self, nursery: trio.Nursery, answers: list[bytes]) -> None:
        self._nursery = nursery
        self.answers = answers

    async def dial(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += bytes(await stream.receive_some()) or b"\r\n\r\n"
        with suppress(trio.BrokenResourceError):  # it has read enough
            await stream.send_all(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        await stream.aclose()


def answered(endpoint: Endpoint, hostile: bytes) -> tuple[Watch[Any, Any], list[Any]]:
    """The watch after a good answer, the hostile one and a good one again; all that it published."""
    published: list[Any] = []

    async def follow() -> Watch[Any, Any]:
        async with trio.open_nursery() as nursery:
            good = json.dumps(endpoint.good).encode()
            first, last = response(good, b"X-Consul-Index: 7"), response(good, b"X-Consul-Index: 9")
            server = Server(nursery, [first, hostile, last])
            consul = Consul(Client(server.dial, host="consul"), TokenSource(None, None))
            watch = endpoint.watch(consul, published.append)
            with trio.move_on_after(1000) as done:
                watch.on_answer = lambda status: done.cancel() if over(server, status) else None
                await watch.follow(lambda: datetime(2031, 5, 17, tzinfo=UTC), Random(7))
            nursery.cancel_scope.cancel()
        return watch

    return trio.run(follow, clock=MockClock(autojump_threshold=0)), published


def over(server: Server, status: WatchStatus) -> bool:
    """Whether the last good answer has come."""
    return len(server.answers) == 1 and status.answers > 1


def check(endpoint: Endpoint, hostile: bytes) -> None:
    watch, published = answered(endpoint, hostile)
    assert published, "the good answer"
    assert "internal_error" not in watch.status.failures
    assert watch.status.answers >= 2, "it goes on"
    assert watch.status.failing is None
    for value in published:
        tell_workers(value)


def tell_workers(value: object) -> None:
    """As a frame, and back."""
    order: Message | None = None
    if isinstance(value, Registration | SourceIntentions):
        order = value
    elif isinstance(value, Intentions):
        order = Policy(intentions=value)
    elif isinstance(value, EndpointSet):
        order = HandedEndpoints(
            number=1, lookup=DB, poll_interval=None, polled=False, endpoints=value, failing=""
        )
    elif isinstance(value, TrustBundle):
        order = HandedCredentials(
            cert_pem="",
            key_pem="",
            roots=roots_answer_of(value),
            service="web",
            datacenter=None,
            at=datetime(2031, 5, 17, tzinfo=UTC),
            generation=1,
        )
    if order is not None:
        decode(encode(order))


def nested(document: Any, levels: int, kind: str) -> bytes:
    """The document with one value nested so deep: no encoder writes that."""
    opening, closing = ("[", "]") if kind == "list" else ('{"a":', "}")
    text = opening * levels + ("1" if kind == "map" else "") + closing * levels
    return json.dumps(document).replace(json.dumps(DEEP), text).encode()


def deepened(document: Any) -> st.SearchStrategy[bytes]:
    """One place of it nested."""

    def put(change: Any, levels: int, kind: str) -> bytes:
        changed = deepcopy(document)
        holder = changed
        for step in change.path[:-1]:
            holder = holder[step]
        holder[change.path[-1]] = DEEP
        return nested(changed, levels, kind)

    levels = st.sampled_from([2, 100, 300, 900, 990, 1000, 5000, 100_000])
    return st.builds(put, mutated(document), levels, st.sampled_from(["list", "map"]))


def spoilt(document: Any) -> st.SearchStrategy[bytes]:
    """Cut off, with a byte that is no UTF-8, or with other bytes before or behind it."""
    text = json.dumps(document).encode()
    place, byte = (
        st.integers(0, len(text)),
        st.binary(max_size=3) | st.sampled_from([b"\xff", b"\0", b"\xc3"]),
    )
    cut = st.builds(lambda at: text[:at], place)
    inside = st.builds(lambda at, more: text[:at] + more + text[at:], place, byte)
    return (
        cut | inside | st.sampled_from([b"", b"null", b"[]", b"{}", b'"', b"\xef\xbb\xbf" + text, b"1e999"])
    )


def bodies(document: Any) -> st.SearchStrategy[bytes]:
    texts = st.builds(lambda change: json.dumps(change.document).encode(), mutated(document))
    return texts | deepened(document) | spoilt(document)


NUMBERS = [
    *(b"", b"0", b"-1", b"1", b"9", b"+9", b"1e9", b"\xb2", b"0x9", b" 9"),
    *(b"9" * digits for digits in (20, 4300, 5000)),
]
NAMES = [
    *(b"X-Consul-Index", b"X-Consul-Contenthash", b"X-Consul-Default-Acl-Policy", b"X-Consul-Lastcontact"),
    *(b"X-Consul-Results-Filtered-By-Acls", b"Date", b"Content-Length", b"Transfer-Encoding"),
]
VALUES = [*NUMBERS, b"true", b"deny", b"chunked", b"Sun, 99 Feb 2031 99:99:99 GMT", b"\xff\xfe", b"x" * 9000]
header_lines = st.builds(
    lambda name, value: name + b": " + value, st.sampled_from(NAMES), st.sampled_from(VALUES)
)


@pytest.mark.parametrize("name", ENDPOINTS)
@settings(max_examples=60)
@given(data=st.data())
def test_no_body_of_whatever_form_ends_more_than_one_question(name: str, data: st.DataObject) -> None:
    endpoint = ENDPOINTS[name]
    check(endpoint, response(data.draw(bodies(endpoint.good)), b"X-Consul-Index: 8"))


@pytest.mark.parametrize("name", ENDPOINTS)
@settings(max_examples=60)
@given(lines=st.lists(header_lines, max_size=3))
@example(lines=[b"X-Consul-Index: " + b"9" * 4300])
@example(lines=[b"Content-Length: " + b"9" * 5000])
def test_nor_does_any_header(name: str, lines: list[bytes]) -> None:
    endpoint = ENDPOINTS[name]
    check(endpoint, response(json.dumps(endpoint.good).encode(), *lines))


@pytest.mark.parametrize("name", ENDPOINTS)
@settings(max_examples=40)
@given(raw=st.binary(max_size=200) | st.binary(max_size=50).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
def test_nor_do_bytes_that_are_no_answer_at_all(name: str, raw: bytes) -> None:
    check(ENDPOINTS[name], raw)


BEYOND = [2**64, -(2**63) - 1, 10**30, -(10**30), 1e300, "\0", "a" * 70_000]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_number_no_frame_can_hold_is_no_limit_no_port_and_no_serial(name: str) -> None:
    """Workers are told what is published: a value that cannot be written would end them all."""
    endpoint = ENDPOINTS[name]
    for path in places(endpoint.good):
        for value in BEYOND:
            document = deepcopy(endpoint.good)
            holder = document
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = value
            check(endpoint, response(json.dumps(document).encode(), b"X-Consul-Index: 8"))


@pytest.mark.parametrize("levels", [900, 1000, 100_000])
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_field_nobody_asks_for_may_be_nested_however_deep(name: str, levels: int) -> None:
    """`Proxy.Config` of a registration comes in the answers about health, too."""
    endpoint = ENDPOINTS[name]
    document = deepcopy(endpoint.good)
    holder = document[0] if isinstance(document, list) else document
    holder["Unasked"] = DEEP
    check(endpoint, response(nested(document, levels, "map"), b"X-Consul-Index: 8"))
