"""Headers that are read line by line: what comes of them is what the whole head's readers make of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.fields import header_values, request_fields, written
from agent.http1.head import MAX_FIELDS, read_head
from agent.http1.request_reader import RequestReader
from agent.http1.usual_headers import Line, identity_line, read_line, read_usual_headers
from tests.agent.http1.test_request_reader import HEADERS, LINES, shown
from tests.support.careful_reader import CarefulReader

IDENTITY = b"URI=spiffe://x"


def block(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def by_the_whole_head(raw: bytes) -> tuple[object, ...]:
    """What the readers of whole heads make of these headers."""
    fields = request_fields(read_head(b"GET / HTTP/1.1\r\n" + raw), b"127.0.0.1:80", IDENTITY)
    return fields, written(fields), header_values(fields)


def test_a_line_is_read_once_and_then_looked_up() -> None:
    first = read_usual_headers(block("Host: db", "X-A: b", "X-Id: 1"), {})
    assert first is not None
    again = read_usual_headers(block("Host: db", "X-A: b", "X-Id: 2"), first.lines)
    assert again is not None
    assert again.lines[b"X-A: b"] is first.lines[b"X-A: b"]
    assert again.written == b"Host: db\r\nX-A: b\r\nX-Id: 2\r\n"
    assert b"X-Id: 1" not in again.lines


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("X-A: b",),
        ("Host: db", "Host: db"),
        ("Host: d b",),
        ("Host: db", "Content-Length: 0"),
        ("Host: db", "Transfer-Encoding: chunked"),
        ("Host: db", "Expect: 100-continue"),
        ("Host: db", "Upgrade: websocket"),
        ("Host: db", "Connection: close"),
        ("Host: db", "Connection: keep-alive, X-A"),
        ("Host: db", "X_A: b"),
        ("Host: db", "X.A: b"),
        ("Host: db", "X-A : b"),
        ("Host: db", " folded"),
        ("Host: db", "X-A: b\rX-B: c"),
        ("Host: db", "X-A: b\nX-B: c"),
        ("Host: db", "X-A: \0"),
        ("Host: db", "", "X-A: b"),
        ("Host: db", "x" * 257 + ": b"),
        ("Host: db", *["X-A: b"] * MAX_FIELDS),
    ],
    ids=repr,
)
def test_headers_with_more_to_them_are_left_to_the_whole_heads_reader(lines: tuple[str, ...]) -> None:
    assert read_usual_headers(block(*lines), {}) is None


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"Host: db\r\n", b"Host: db"])
def test_what_is_no_block_of_headers_is_left_alone(raw: bytes) -> None:
    assert read_usual_headers(raw, {}) is None


@pytest.mark.parametrize(
    "raw", [b"Te: trailers", b"keep-alive: 5", b"X-Forwarded-Client-Cert: evil", b"Connection: Keep-Alive"]
)
def test_lines_that_end_here(raw: bytes) -> None:
    line = read_line(raw)
    assert line is not None
    assert line.gone


@pytest.mark.parametrize("value", [b"x\r\nEvil: 1", b"x\n", b"\0"])
def test_an_identity_that_breaks_the_grammar_is_no_line(value: bytes) -> None:
    assert identity_line(value) is None


MORE = [
    *("Connection: keep-alive", "connection:  Keep-Alive\t", "Connection: keep-alive, close", "X-Y:\t z \t"),
    *(
        "X-Id: 1",
        "X-Id: 2",
        "x-id: 1",
        "X-U: \xe9",
        "X-U: \xc3\xa9",
        "Keep-Alive: 5",
        "Host: [::1]:80",
        "X-E:",
    ),
    *(
        "Host: a@b",
        "Proxy-Authorization: x",
        "Cookie: a=b",
        "Cookie: c",
        "X-Forwarded-Client-Cert: evil",
        "Te: x",
    ),
]
FIELDS = st.lists(st.sampled_from([*HEADERS, *MORE, "Host: db", "Host: db"]), max_size=7)


@given(st.lists(FIELDS, min_size=1, max_size=4))
def test_the_whole_heads_readers_make_the_same_of_it(blocks: list[list[str]]) -> None:
    before: dict[bytes, Line] = {}
    for lines in blocks:
        raw = block(*lines)
        found = read_usual_headers(raw, before)
        if found is None:
            continue
        before = dict(found.lines)
        own = identity_line(IDENTITY)
        assert own is not None
        fields = [*found.fields, own.field]
        values = {**found.values, own.folded: own.values}
        assert (fields, found.written + own.written + b"\r\n", values) == by_the_whole_head(raw)


@given(st.lists(st.tuples(st.sampled_from(LINES), FIELDS), min_size=1, max_size=4))
def test_a_request_comes_to_the_same_whichever_way_it_is_read(heads: list[tuple[str, list[str]]]) -> None:
    by = RequestReader(host=b"127.0.0.1:80", identity=IDENTITY, judged=frozenset)
    for line, fields in heads:
        raw = f"{line}\r\n".encode("latin-1") + block(*fields)
        careful = CarefulReader(host=b"127.0.0.1:80", identity=IDENTITY, judged=frozenset)
        assert shown(raw, by) == shown(raw, careful)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_bytes_of_any_kind_are_refused_or_read_the_same(pieces: list[bytes]) -> None:
    by = RequestReader(host=b"127.0.0.1:80", identity=IDENTITY, judged=frozenset)
    for piece in pieces:
        raw = b"GET / HTTP/1.1\r\nHost: db\r\n" + piece + b"\r\n\r\n"
        careful = CarefulReader(host=b"127.0.0.1:80", identity=IDENTITY, judged=frozenset)
        assert shown(raw, by) == shown(raw, careful)
