"""Plain answers: what is taken for one is what h11 makes of it; all else is left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.fields import response_fields
from agent.http1.response_fast import read_fast

OK = b"HTTP/1.1 200 OK\r\n"


def test_a_plain_answer() -> None:
    raw = OK + b"Server: x\r\nContent-Length: 5\r\nX-Y:z\r\n\r\nhello"
    answer = read_fast(raw, b"GET")
    assert answer is not None
    assert (answer.body_start, answer.length, answer.keep_alive) == (len(raw) - 5, 5, True)
    assert answer.written(close=False) == raw[:-5]
    assert answer.written(close=True) == raw[:-7] + b"Connection: close\r\n\r\n"


def test_what_belongs_to_one_connection_ends_here() -> None:
    raw = (
        OK
        + b"connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nTest: 1\r\nContent-Length: 0\r\nTE: x\r\n\r\n"
    )
    answer = read_fast(raw, b"GET")
    assert answer is not None
    assert answer.written(close=False) == OK + b"Test: 1\r\nContent-Length: 0\r\n\r\n"
    assert answer.keep_alive


def test_an_app_that_says_it_closes_is_believed() -> None:
    answer = read_fast(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", b"GET")
    assert answer is not None
    assert not answer.keep_alive
    assert b"lose" not in answer.written(close=False)


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [(b"HEAD", b"200", b"Content-Length: 5\r\n"), (b"GET", b"204", b""), (b"GET", b"304", b"ETag: x\r\n")],
)
def test_answers_without_a_body(method: bytes, status: bytes, fields: bytes) -> None:
    answer = read_fast(b"HTTP/1.1 %b X\r\n%b\r\n" % (status, fields), method)
    assert answer is not None
    assert answer.length == 0


NOT_PLAIN = [
    b"",
    OK,
    OK + b"Content-Length: 5\r\n",
    OK + b"\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    OK + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\n",
    OK + b"Content-Length: 5, 5\r\n\r\n",
    OK + b"Content-Length: +5\r\n\r\n",
    OK + b"Content-Length: 0x5\r\n\r\n",
    OK + b"Content-Length:\r\n\r\n",
    OK + b"Content-Length:5\r\n\r\n",
    OK + b"Content-Length:  5\r\n\r\n",
    OK + b"Content-Length: 05\r\n\r\n",
    OK + b"Content-Length: 00\r\n\r\n",
    OK + b"Content-Length: 1000000000000000000\r\n\r\n",
    OK + b"Transfer-Encoding: Chunked\r\n\r\n",
    OK + b"Transfer-Encoding:chunked\r\n\r\n",
    OK + b"Content-Length: 5\r\nX: a\r\n b\r\n\r\n",
    OK + b"Content-Length : 5\r\n\r\n",
    OK + b"Content-Length: 5\r\nX: a\n\r\n",
    OK + b"Content-Length: 5\r\nX: a\0b\r\n\r\n",
    OK + b"Content-Length: 5\r\nConnection: x-y\r\nX-Y: 1\r\n\r\n",
    OK + b"Content-Length: 5\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"http/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    b"x" + OK + b"Content-Length: 5\r\n\r\n",
]


@pytest.mark.parametrize("raw", NOT_PLAIN, ids=repr)
def test_what_is_not_plain_is_left_to_h11(raw: bytes) -> None:
    assert read_fast(raw, b"GET") is None


def test_chunks_are_plain_too_but_not_those_that_do_not_come() -> None:
    raw = OK + b"Transfer-encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
    answer = read_fast(raw, b"GET")
    assert answer is not None
    assert (answer.chunked, answer.length, answer.keep_alive) == (True, 0, False)
    assert answer.written(close=False) == OK + b"Transfer-encoding: chunked\r\n\r\n"
    assert read_fast(raw, b"HEAD") is None


lines = st.sampled_from(
    [
        *(b"Content-Length: 5", b"content-length:5", b"Content-Length: 05", b"Content-Length: 7", b"X: y"),
        *(
            b"Connection: keep-alive",
            b"Connection: close",
            b"CONNECTION: x",
            b"Connection: close, x",
            b"TE: a",
        ),
        *(
            b"Transfer-Encoding: chunked",
            b"Upgrade: websocket",
            b"Keep-Alive: 5",
            b" folded",
            b"X : y",
            b"X:",
        ),
        *(
            b"Set-Cookie: a=b",
            b"Set-Cookie: c",
            b"Content-Lengthy: 3",
            b"X-Content-Length: 3",
            b": x",
            b"\xe9: x",
        ),
        *(b"X: \xe9", b"X: \x01", b"Proxy-Connection: close", b"", b"Ete: x"),
    ]
)
statuses = st.sampled_from([b"200 OK", b"204 x", b"304 x", b"404 ", b"500", b"100 x", b"101 x", b"299 \xe9"])
methods = st.sampled_from([b"GET", b"HEAD", b"POST"])


@given(methods, statuses, st.lists(lines, max_size=6), st.binary(max_size=9))
def test_h11_would_read_the_same(method: bytes, status: bytes, fields: list[bytes], body: bytes) -> None:
    raw = b"HTTP/1.1 %b\r\n%b\r\n" % (status, b"".join(field + b"\r\n" for field in fields)) + body
    plain = read_fast(raw, method)
    if plain is None:
        return
    app = h11.Connection(h11.CLIENT)
    app.send(h11.Request(method=method, target="/", headers=[("Host", "db")]))
    app.send(h11.EndOfMessage())
    app.receive_data(raw)
    head = app.next_event()
    assert isinstance(head, h11.Response)
    if not plain.chunked:  # whose end is another test's matter
        heard = bytearray()
        while isinstance(event := app.next_event(), h11.Data):
            heard += event.data
        assert bytes(heard) == raw[plain.body_start :][: plain.length]
        assert isinstance(event, h11.EndOfMessage) is (len(raw) - plain.body_start >= plain.length)
        if isinstance(event, h11.EndOfMessage):
            assert plain.keep_alive is (app.their_state is h11.DONE)
    caller = h11.Connection(h11.CLIENT)
    caller.send(h11.Request(method=method, target="/", headers=[("Host", "db")]))
    caller.receive_data(plain.written(close=False))
    passed = caller.next_event()
    assert isinstance(passed, h11.Response)
    assert list(passed.headers.raw_items()) == response_fields(head)
