"""A request as it is read: what the app gets is what the rules see, and h11 reads it so."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.head import FieldNames, HeadReason, HeadRefused
from agent.http1.request_body import ChunkedBody, CountedBody
from agent.http1.request_reader import REMEMBERED, ParsedRequest, RequestReader
from agent.http1.target import TargetRefused
from tests.scenarios.attempts import AGAINST_ALLOWANCES, AGAINST_DENIALS, SMUGGLING
from tests.scenarios.http_front import request


def reader(identity: bytes = b"URI=spiffe://x") -> RequestReader:
    return RequestReader(host=b"127.0.0.1:80", identity=identity, judged=lambda: {"x"})


def read(raw: bytes, by: RequestReader | None = None) -> ParsedRequest:
    head, mark, came = raw.partition(b"\r\n\r\n")
    return (by or reader()).read(head + mark, came)


def shown(raw: bytes, by: RequestReader) -> object:
    """All that is made of a request, or the reason why nothing is."""
    try:
        call = read(raw, by)
    except (HeadRefused, TargetRefused) as refusal:
        return refusal.reason, refusal.detail
    body = call.body
    return (
        *(call.method, call.raw_target, call.http10, call.target, call.fields, call.head, call.request),
        *(call.framing, call.bodiless, call.upgrades, type(body), body.ended, body.rest),
    )


def test_what_the_app_gets() -> None:
    call = read(request("GET //a/../b?c=%41", "Keep-Alive: 5", "X-Y: z"))
    assert call.head == (
        b"GET /b?c=%41 HTTP/1.1\r\nHost: db\r\nX-Y: z\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\n\r\n"
    )
    assert call.request.paths == ("/b",)
    assert call.request.headers.keys() == {"host", "x-y", "x-forwarded-client-cert"}
    assert (call.bodiless, call.framing.closes, call.body.ended) == (True, False, True)


@pytest.mark.parametrize(
    ("raw", "kind", "whole", "closes", "waits"),
    [
        (request("GET /"), CountedBody, True, False, False),
        (request("POST /", "Content-Length: 0"), CountedBody, True, False, False),
        (request("POST /", "content-length: 2", body=b"hi"), CountedBody, False, False, False),
        (request("POST /", "content-length: 002", body=b"hi"), CountedBody, False, False, False),
        (
            request("POST /", "Transfer-Encoding: Chunked", body=b"0\r\n\r\n"),
            ChunkedBody,
            False,
            False,
            False,
        ),
        (request("PUT /", "Expect: 100-Continue", "Content-Length: 9"), CountedBody, False, False, True),
        (request("GET /", "Connection: x-a, Close"), CountedBody, True, True, False),
        (b"GET / HTTP/1.0\r\n\r\n", CountedBody, True, True, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", CountedBody, True, True, False),
    ],
    ids=repr,
)
def test_framing(raw: bytes, kind: type, whole: bool, closes: bool, waits: bool) -> None:
    call = read(raw)
    assert isinstance(call.body, kind)
    assert (call.bodiless, call.framing.closes, call.framing.expects_continue) == (whole, closes, waits)
    assert call.head.endswith(b"\r\nConnection: close\r\n\r\n") is not whole  # `app_connection.py`
    assert b": 002" not in call.head


@pytest.mark.parametrize(
    ("raw", "old", "upgrades"),
    [
        (request("GET /"), False, False),
        (b"GET / HTTP/1.0\r\n\r\n", True, False),
        (request("GET /", "Connection: Upgrade", "Upgrade: websocket"), False, True),
        (request("GET /", "Connection: Upgrade", "Upgrade: h2c"), False, False),
    ],
)
def test_what_its_answer_depends_on(raw: bytes, old: bool, upgrades: bool) -> None:
    call = read(raw)
    assert (call.http10, call.upgrades) == (old, upgrades)


@pytest.mark.parametrize("before", [b"", request("GET /")])
def test_no_tunnels(before: bytes) -> None:
    by = reader()
    if before:
        read(before, by)
    for target in ("db:80", "/"):
        with pytest.raises(HeadRefused) as refused:
            read(request(f"CONNECT {target}"), by)
        assert refused.value.reason is HeadReason.CONNECT


@pytest.mark.parametrize("identity", [b"x\r\nEvil: 1", b"x\nEvil: 1", b"x\0"])
def test_what_is_written_is_held_to_the_grammar_too(identity: bytes) -> None:
    with pytest.raises(HeadRefused):
        read(request("GET /"), reader(identity))


def test_where_underscores_are_let_through_rules_and_identity_are_folded() -> None:
    raw = request("GET /", "X_Role: a", "x-role: b", "X_Forwarded_Client_Cert: evil")
    with pytest.raises(HeadRefused) as refused:
        read(raw)
    assert refused.value.reason is HeadReason.FIELD_NAME
    by = RequestReader(host=b"db", identity=b"us", judged=frozenset, names=FieldNames.UNDERSCORES)
    for _ in range(2):
        call = read(raw, by)
        assert call.request.headers["x-role"] == ("a", "b")
        assert call.request.headers["x-forwarded-client-cert"] == ("us",)


CRAFTED = [case.raw for case in (*AGAINST_DENIALS, *AGAINST_ALLOWANCES, *SMUGGLING)]


@pytest.mark.parametrize("raw", CRAFTED, ids=repr)
def test_h11_reads_of_it_what_was_judged(raw: bytes) -> None:
    try:
        call = read(raw)
    except ValueError:
        return
    app = h11.Connection(h11.SERVER)
    app.receive_data(call.head)
    seen = app.next_event()
    assert isinstance(seen, h11.Request)
    assert (seen.method.decode(), seen.target) == (call.request.method, call.target.sent)
    assert list(seen.headers.raw_items()) == call.fields
    assert app.trailing_data[0] == b""


def test_headers_that_come_again_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    by = reader()
    first = read(request("GET /1", "X: y", "Content-Length: 2", body=b"hi"), by)
    monkeypatch.setattr("agent.http1.request_reader.read_head", None)
    monkeypatch.setattr("agent.http1.request_reader.framing", None)
    again = read(request("PUT /2?q", "X: y", "Content-Length: 2", body=b"ho!"), by)
    assert again.head == first.head.replace(b"GET /1", b"PUT /2?q")
    assert (again.request.method, again.request.paths) == ("PUT", ("/2",))
    assert (again.body.start(), again.body.rest) == (b"ho", b"!")
    assert first.body.start() == b"hi"


@pytest.mark.parametrize(
    "raw",
    [
        request("POST /", "Transfer-Encoding: chunked"),
        request("GET /", "Connection: Upgrade", "Upgrade: websocket"),
        request("POST /", "Expect: 100-continue", "Content-Length: 5"),
        request("GET /", "X: " + "y" * REMEMBERED),
        b"GET / HTTP/1.0\r\nHost: db\r\n\r\n",
    ],
)
def test_headers_that_mean_more_than_themselves_are_not_kept(raw: bytes) -> None:
    by = reader()
    read(request("GET /"), by)
    read(raw, by)
    assert by._last is None


LINES = [
    *("GET / HTTP/1.1", "GET /a/../b HTTP/1.1", "get / HTTP/1.1", "POST //x HTTP/1.1", "GET /%2f HTTP/1.1"),
    *("GET http://db/x HTTP/1.1", "GET http://evil/x HTTP/1.1", "OPTIONS * HTTP/1.1", "GET * HTTP/1.1"),
    *("GET / HTTP/1.0", "GET / HTTP/2.0", "GET  / HTTP/1.1", "GET /a b HTTP/1.1", "G(T / HTTP/1.1", "GET /"),
    *("CONNECT db:80 HTTP/1.1", "CONNECT / HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /#x HTTP/1.1", ""),
    *("GET /x HTTP/1.1 ", "GET /x HTTP/1.1\rX: y", "GET /x HTTP/1.1\nX: y", "POST /%zz HTTP/1.1"),
]
HEADERS = [
    *("Host: db", "Host: db", "host: db", "Host: evil", "X: y", "X_Role: root", "Connection: close"),
    *("Content-Length: 5", "Content-Length: 0", "Content-Length: 5, 5", "Transfer-Encoding: chunked"),
    *("Connection: Upgrade", "Upgrade: websocket", "Connection: x", "Connection: host", "Expect: x"),
    *("Content_Length: 5", "X-Forwarded-Client-Cert: evil", "X : y", "X: \0", ": x", "Te: trailers"),
    *("Expect: 100-continue", " folded"),
]
PLAIN = [("Host: db",), ("Host: db", "Content-Length: 5"), ("Host: db", "Connection: x", "X: y")]
heads = st.builds(
    lambda line, fields: "\r\n".join((line, *fields, "", "")).encode("latin-1"),
    st.sampled_from(LINES),
    st.one_of(st.sampled_from(PLAIN), st.lists(st.sampled_from(HEADERS), max_size=4)),
)


@given(st.lists(st.one_of(heads, st.sampled_from(CRAFTED)), min_size=2, max_size=5), st.data())
def test_what_was_read_before_changes_nothing(raw: list[bytes], data: st.DataObject) -> None:
    by = reader()
    for one in raw:
        other = data.draw(st.sampled_from(LINES)).encode("latin-1")  # with the same headers behind it
        for each in (one, other + one[one.find(b"\r\n") :]):
            assert shown(each, by) == shown(each, reader())


@given(st.sampled_from(LINES), st.sampled_from(LINES), st.lists(st.sampled_from(HEADERS), max_size=3))
def test_a_usual_line_before_changes_nothing(first: str, second: str, fields: list[str]) -> None:
    by = reader()
    for line in (first, second):
        raw = "\r\n".join((line, "Host: db", *fields, "", "")).encode("latin-1")
        assert shown(raw, by) == shown(raw, reader())
