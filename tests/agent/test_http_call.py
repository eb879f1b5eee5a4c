"""A request as it is read: what the app gets is what the rules see, and h11 reads it so."""

from __future__ import annotations

import h11
import pytest

from agent.http_body import ChunkedBody, CountedBody
from agent.http_call import Call, read_call
from agent.request_head import HeadReason, HeadRefused
from tests.scenarios.attempts import AGAINST_ALLOWANCES, AGAINST_DENIALS, SMUGGLING
from tests.scenarios.http_front import request


def read(raw: bytes) -> Call:
    head, mark, came = raw.partition(b"\r\n\r\n")
    return read_call(
        head + mark, came, host=b"127.0.0.1:80", identity=b"URI=spiffe://x", judged=lambda: {"x"}
    )


def test_what_the_app_gets() -> None:
    call = read(request("GET //a/../b?c=%41", "Keep-Alive: 5", "X-Y: z"))
    assert call.head == (
        b"GET /b?c=%41 HTTP/1.1\r\nHost: db\r\nX-Y: z\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\n\r\n"
    )
    assert call.asked.paths == ("/b",)
    assert call.asked.headers.keys() == {"host", "x-y", "x-forwarded-client-cert"}
    assert (call.whole, call.closes, call.body.ended) == (True, False, True)


@pytest.mark.parametrize(
    ("raw", "kind", "whole", "closes"),
    [
        (request("GET /"), CountedBody, True, False),
        (request("POST /", "Content-Length: 0"), CountedBody, True, False),
        (request("POST /", "content-length: 2", body=b"hi"), CountedBody, False, False),
        (request("POST /", "Transfer-Encoding: Chunked", body=b"0\r\n\r\n"), ChunkedBody, False, False),
        (request("GET /", "Connection: x-a, Close"), CountedBody, True, True),
        (b"GET / HTTP/1.0\r\n\r\n", CountedBody, True, True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", CountedBody, True, True),
    ],
    ids=repr,
)
def test_framing(raw: bytes, kind: type, whole: bool, closes: bool) -> None:
    call = read(raw)
    assert isinstance(call.body, kind)
    assert (call.whole, call.closes) == (whole, closes)


def test_no_tunnels() -> None:
    with pytest.raises(HeadRefused) as refused:
        read(b"CONNECT db:80 HTTP/1.1\r\nHost: db:80\r\n\r\n")
    assert refused.value.reason is HeadReason.CONNECT


def test_what_is_written_is_held_to_the_grammar_too() -> None:
    with pytest.raises(HeadRefused):
        read_call(request("GET /"), b"", host=b"db", identity=b"x\r\nEvil: 1", judged=set)


@pytest.mark.parametrize(
    "raw", [case.raw for case in (*AGAINST_DENIALS, *AGAINST_ALLOWANCES, *SMUGGLING)], ids=repr
)
def test_h11_reads_of_it_what_was_judged(raw: bytes) -> None:
    try:
        call = read(raw)
    except ValueError:
        return
    app = h11.Connection(h11.SERVER)
    app.receive_data(call.head)
    seen = app.next_event()
    assert isinstance(seen, h11.Request)
    assert (seen.method.decode(), seen.target) == (call.asked.method, call.target.sent)
    assert list(seen.headers.raw_items()) == call.fields
    assert app.trailing_data[0] == b""
