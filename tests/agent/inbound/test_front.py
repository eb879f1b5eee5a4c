"""Usual requests and answers, without IO: taken whole or not at all, and as the careful path takes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.latest import Latest
from agent.http1.fields import LAST
from agent.http1.head import find_end
from agent.http1.request_reader import RequestReader
from agent.http1.response_h11 import H11Response
from agent.inbound.front import Front
from agent.inbound.request_judge import RequestJudge
from agent.policy.authorize import Policy, authorize_request
from tests.scenarios.attempts import AGAINST_ALLOWANCES, AGAINST_DENIALS, SMUGGLING
from tests.scenarios.http_front import allow, deny, policy, request
from tests.support.http_services import WEB, http_service

RULES = policy(
    deny(PathPrefix="/no"), deny(Header=[{"Name": "x-no", "Present": True}]), allow(PathPrefix="/")
)


def reader() -> RequestReader:
    return RequestReader(host=b"127.0.0.1:80", identity=b"URI=spiffe://x", judged=frozenset)


def front(newest: Policy = RULES) -> Front:
    return Front(reader(), RequestJudge(http_service(Latest(newest)), WEB))


@pytest.mark.parametrize(
    "raw",
    [
        request("GET /"),
        request("GET /a?b=c", "Connection: keep-alive", "X-A: b"),
        request("HEAD /"),
        request("POST /"),
        request("POST /", "Content-Length: 5"),
        request("DELETE /", "Content-Length: 0"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("more", [b"", b"he", b"hello", b"hello" + request("GET /no")])
def test_a_usual_request_is_what_the_reader_reads(raw: bytes, more: bytes) -> None:
    allowed = front().request(raw + more)
    assert allowed is not None
    careful = reader().read(raw, more)
    assert allowed.parsed.head == careful.head
    assert allowed.parsed.bodiless is careful.bodiless
    body, expected = allowed.parsed.body, careful.body
    assert (body.start(), body.ended, body.rest) == (expected.start(), expected.ended, expected.rest)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET",
        request("GET /")[:-1],
        b"\r\n" + request("GET /"),
        request("GET /no") + request("GET /"),
        request("POST /no", "Content-Length: 2", body=b"hi"),
        request("POST /", "Content-Length: 2", "Expect: 100-continue"),
        request("POST /", "Content-Length: 2", "Connection: close"),
        request("POST /", "Content-Length: 2", "Transfer-Encoding: chunked"),
        request("POST /", "Transfer-Encoding: chunked"),
        request("GET /", "Connection: close"),
        request("GET /", "Expect: 100-continue"),
        request("GET /", "Connection: Upgrade", "Upgrade: websocket"),
        b"GET / HTTP/1.0\r\nHost: db\r\n\r\n",
        request("GET /no"),
        request("GET /", "X-No: 1"),
        request("GET /a%2fb"),
        request("GET /", "X.A: b"),
        *(attempt.raw for attempt in SMUGGLING if 200 not in attempt.status),
    ],
    ids=repr,
)
def test_what_else_comes_is_left_alone(raw: bytes) -> None:
    assert front().request(raw) is None


def test_a_call_that_only_audit_allows_is_left_to_the_audit() -> None:
    assert front(replace(RULES, audit=True)).request(request("GET /no")) is None


HEADERS = st.sampled_from(
    [
        *("X-A: 1", "X-No: 1", "x_no: 1", "Connection: close", "Connection: X-No", "Content-Length: 0"),
        *("Content-Length: 1", "Transfer-Encoding: chunked", "Upgrade: websocket", "Connection: keep-alive"),
        *("Host: other", "Expect: 100-continue", "X-Original-URL: /no", " folded", "X-Bad\t: 1", "X-A: 2"),
    ]
)
LINES = st.sampled_from(
    [
        "GET /",
        "GET /no",
        "POST /x?y",
        "GET //no",
        "GET /%6eo",
        "HEAD /",
        "OPTIONS *",
        "CONNECT db:1",
        "GET no",
    ]
)


@given(
    st.lists(st.one_of(st.tuples(LINES, st.lists(HEADERS, max_size=4)), st.none()), max_size=6),
    st.sampled_from([attempt.raw for attempt in (*AGAINST_DENIALS, *AGAINST_ALLOWANCES, *SMUGGLING)]),
)
def test_nothing_passes_that_a_reader_of_its_own_and_a_fresh_verdict_would_not_pass(
    seen: list[tuple[str, list[str]] | None], attempt: bytes
) -> None:
    one = front()
    for drawn in seen:
        raw = attempt if drawn is None else request(drawn[0], *drawn[1])
        allowed = one.request(raw)
        if allowed is None:
            continue
        end = find_end(raw)
        assert end is not None
        parsed = reader().read(raw[:end], raw[end:])
        assert (parsed.head, parsed.request) == (allowed.parsed.head, allowed.parsed.request)
        assert (LAST in parsed.fields) is not parsed.bodiless
        body, passed = parsed.body, allowed.parsed.body
        assert (body.start(), body.ended, body.rest) == (passed.start(), passed.ended, passed.rest)
        assert authorize_request(RULES, WEB, parsed.request, None) == allowed.verdict
        assert allowed.verdict.allowed


ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\nX-T: u\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ]
)


@given(ANSWERS, st.integers(0, 120), st.binary(max_size=3), st.sampled_from([b"GET", b"HEAD"]))
def test_an_answer_is_taken_whole_or_not_at_all(raw: bytes, cut: int, more: bytes, method: bytes) -> None:
    received = raw[:cut] + more
    answer = front().answer(received, method)
    if answer is None:
        return
    careful = H11Response(method, http10=False, upgrades=False)
    careful.take(received, close=False)
    assert careful.ended
    assert not careful.rest
    assert careful.keep_alive is answer.keep_alive


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_what_is_short_of_an_answer_or_more_than_one_is_left_alone(raw: bytes) -> None:
    assert front().answer(raw, b"GET") is not None
    assert front().answer(raw + b"x", b"GET") is None
    for size in range(len(raw)):
        assert front().answer(raw[:size], b"GET") is None


def test_broken_chunks_are_left_alone() -> None:
    assert front().answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET") is None
