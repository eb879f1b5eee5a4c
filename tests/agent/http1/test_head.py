"""Heads: the grammar to the letter, every fault by name."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.head import (
    MAX_FIELDS,
    MAX_HEAD,
    FieldNames,
    HeadReason,
    HeadRefused,
    find_end,
    has_bare_line_end,
    read_head,
)

HOST = "Host: db\r\n"

GOOD = [
    "GET / HTTP/1.1\r\nHost: db\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "get / HTTP/1.1\r\nHost: [::1]:80\r\nX:\r\nY: \t a b \t\r\nZ: \xff\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: db\r\nContent-Length:  5 \r\n\r\n",
    f"POST / HTTP/1.1\r\nHost: db\r\nContent-Length: {2**40 - 1}\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: Chunked\r\n\r\n",
]

BAD = [
    ("GET / HTTP/1.1\r\nHost: db\nX: y\r\n\r\n", HeadReason.BARE_LINE_END),
    ("GET / HTTP/1.1\r\nHost: db\r\nX: y\rZ: z\r\n\r\n", HeadReason.BARE_LINE_END),
    (f"GET /\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET  / HTTP/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET /a b HTTP/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET\t/ HTTP/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"G(T / HTTP/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET /\xe9 HTTP/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET / http/1.1\r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET / HTTP/1.1 \r\n{HOST}\r\n", HeadReason.REQUEST_LINE),
    (f"GET / HTTP/1.2\r\n{HOST}\r\n", HeadReason.VERSION),
    ("PRI * HTTP/2.0\r\n\r\n", HeadReason.VERSION),
    (f"GET / HTTP/0.9\r\n{HOST}\r\n", HeadReason.VERSION),
    (f"GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n", HeadReason.FOLDED),
    (f"GET / HTTP/1.1\r\n {HOST}\r\n", HeadReason.FOLDED),
    (f"GET / HTTP/1.1\r\n{HOST}X : a\r\n\r\n", HeadReason.SPACE_BEFORE_COLON),
    (f"GET / HTTP/1.1\r\n{HOST}X\t: a\r\n\r\n", HeadReason.SPACE_BEFORE_COLON),
    (f"GET / HTTP/1.1\r\n{HOST}X\r\n\r\n", HeadReason.HEADER),
    (f"GET / HTTP/1.1\r\n{HOST}: a\r\n\r\n", HeadReason.HEADER),
    (f"GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n", HeadReason.HEADER),
    (f"GET / HTTP/1.1\r\n{HOST}X: a\x0bb\r\n\r\n", HeadReason.HEADER),
    (f"GET / HTTP/1.1\r\n{HOST}X\xe9: a\r\n\r\n", HeadReason.HEADER),
    (
        f"P / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HeadReason.LENGTH_AND_CODING,
    ),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\n", HeadReason.LENGTH_TWICE),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: 1\r\ncontent-length: 2\r\n\r\n", HeadReason.LENGTH_TWICE),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: 1, 1\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: +1\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: 0x1\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length:\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: {'9' * 19}\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Content-Length: {2**40}\r\n\r\n", HeadReason.LENGTH),
    (f"P / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n", HeadReason.CODING),
    (f"P / HTTP/1.1\r\n{HOST}Transfer-Encoding: identity\r\n\r\n", HeadReason.CODING),
    (f"P / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked,\r\n\r\n", HeadReason.CODING),
    (f"P / HTTP/1.1\r\n{HOST}Transfer-Encoding: 'chunked'\r\n\r\n", HeadReason.CODING),
    (
        f"P / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        HeadReason.CODING,
    ),
    ("P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HeadReason.CODING),
    ("GET / HTTP/1.1\r\n\r\n", HeadReason.HOST),
    (f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n", HeadReason.HOST),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", HeadReason.HOST),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadReason.HOST),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HeadReason.HOST),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HeadReason.HOST),
]


@pytest.mark.parametrize("head", GOOD)
def test_a_head_by_the_grammar_passes(head: str) -> None:
    raw = head.encode("latin-1")
    assert find_end(raw + b"rest") == len(raw)
    read_head(raw)


@pytest.mark.parametrize(("head", "reason"), BAD, ids=[repr(row[0]) for row in BAD])
def test_a_fault_is_named(head: str, reason: HeadReason) -> None:
    with pytest.raises(HeadRefused) as refused:
        read_head(head.encode("latin-1"))
    assert refused.value.reason is reason
    assert refused.value.status in {400, 505}


TOKENS = "!#$%&'*+.^_`|~"


@pytest.mark.parametrize("sign", TOKENS)
@pytest.mark.parametrize("name", ["X{}Role", "{}X-Role", "X-Role{}", "{}", "SCRIPT{}NAME", "Content{}Length"])
def test_a_name_that_a_gateway_folds_into_anothers_is_refused(name: str, sign: str) -> None:
    raw = f"GET / HTTP/1.1\r\n{HOST}{name.format(sign)}: x\r\n\r\n".encode()
    with pytest.raises(HeadRefused) as refused:
        read_head(raw)
    assert (refused.value.reason, refused.value.status) == (HeadReason.FIELD_NAME, 400)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (FieldNames.PLAIN, "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
        (FieldNames.UNDERSCORES, "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"),
    ],
)
def test_of_all_characters_names_have_these(names: FieldNames, taken: str) -> None:
    def passes(character: str) -> bool:
        try:
            head = read_head(f"GET / HTTP/1.1\r\n{HOST}X{character}Y: z\r\n\r\n".encode("latin-1"), names)
        except HeadRefused:
            return False
        return [name for name, _ in head.fields] == [b"Host", f"X{character}Y".encode("latin-1")]

    assert "".join(filter(passes, map(chr, range(256)))) == taken


def test_a_name_may_have_256_characters() -> None:
    assert read_head(f"GET / HTTP/1.1\r\n{HOST}{'X' * 256}: y\r\n\r\n".encode())
    with pytest.raises(HeadRefused) as refused:
        read_head(f"GET / HTTP/1.1\r\n{HOST}{'X' * 257}: y\r\n\r\n".encode())
    assert refused.value.reason is HeadReason.FIELD_NAME
    assert len(refused.value.detail) < 150


def test_a_head_has_at_most_100_fields() -> None:
    lines = "".join(f"X-{number}: y\r\n" for number in range(MAX_FIELDS - 1))
    assert len(read_head(f"GET / HTTP/1.1\r\n{HOST}{lines}\r\n".encode()).fields) == MAX_FIELDS
    for more in ("Y: z\r\n", "a:\r\n" * 8000, "a\r\n" * 8000):
        with pytest.raises(HeadRefused) as refused:
            read_head(f"GET / HTTP/1.1\r\n{HOST}{lines}{more}\r\n".encode())
        assert (refused.value.reason, refused.value.status) == (HeadReason.TOO_MANY, 431)


TOKEN = st.text("-09azAZ", min_size=1, max_size=6) | st.text(f"-aZ{TOKENS}", min_size=1, max_size=6)
VALUE = st.text([chr(code) for code in (0x09, 0x20, *range(0x20, 0x7F), *range(0x80, 0x100))], max_size=12)
FRAMING = st.sampled_from(
    [
        *(
            "Content-Length: 5",
            "content-length:\t007 ",
            "Transfer-Encoding: chunked",
            "TRANSFER-encoding: CHUNKED",
        ),
        *("Host: db", "hOST:db:80 ", "Expect: 100-continue", "Connection: close, x", "Upgrade: websocket"),
        *("Content-Length: 5, 5", "Transfer-Encoding: gzip", "Content-Length:", "Host: a b"),
    ]
)
ONE = st.one_of(FRAMING, st.builds("{}:{}".format, TOKEN, VALUE))
TARGET = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=12)


@given(TOKEN, TARGET, st.sampled_from(["1.1", "1.1", "1.0"]), st.lists(ONE, max_size=5))
def test_h11_reads_the_same(method: str, target: str, version: str, fields: list[str]) -> None:
    """What passes leaves nothing to interpret."""
    raw = "\r\n".join((f"{method} {target} HTTP/{version}", "Host: db", *fields, "", "")).encode("latin-1")
    try:
        head = read_head(raw)
    except HeadRefused:
        return
    http = h11.Connection(h11.SERVER)
    http.receive_data(raw)
    request = http.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target, request.http_version) == (
        *(head.method, head.target),
        b"1." + head.minor,
    )
    lowered = [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in head.fields
    ]
    assert list(request.headers.raw_items()) == lowered
    assert dict(request.headers)[b"host"] == head.host


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nX: y\r\n\r"])
def test_an_unfinished_head_is_waited_for(start: bytes) -> None:
    assert find_end(start) is None


@pytest.mark.parametrize(
    ("start", "reason", "status"),
    [
        (b"\x16\x03\x01", HeadReason.REQUEST_LINE, 400),
        (b" GET", HeadReason.REQUEST_LINE, 400),
        (b"GET / HTTP/1.1\n", HeadReason.BARE_LINE_END, 400),
        (b"GET / HTTP/1.1\r\nX: y\n\n", HeadReason.BARE_LINE_END, 400),
        (b"GET /\rx", HeadReason.BARE_LINE_END, 400),
        (b"G" * MAX_HEAD, HeadReason.TOO_LARGE, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD + b"\r\n", HeadReason.TOO_LARGE, 431),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(start: bytes, reason: HeadReason, status: int) -> None:
    with pytest.raises(HeadRefused) as refused:
        find_end(start)
    assert (refused.value.reason, refused.value.status) == (reason, status)


@pytest.mark.parametrize("seen", [b"G\r\n\r\n", b"G\n", b"G\rx"])
def test_what_was_searched_is_not_searched_again(seen: bytes) -> None:
    """A head of 32 KB that comes byte by byte would be searched 32,768 times."""
    for more in (b"x", b"\r", b"xyz"):
        assert find_end(seen + more, len(seen)) is None


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"GET"]), max_size=12).map(b"".join), st.data())
def test_a_search_that_goes_on_finds_what_one_from_the_start_finds(raw: bytes, data: st.DataObject) -> None:
    def found(part: bytes, seen: int) -> object:
        try:
            return find_end(part, seen)
        except HeadRefused as refused:
            return refused.reason

    raw = b"GET" + raw
    places = [*sorted(data.draw(st.sets(st.integers(1, len(raw))))), len(raw)]
    seen = 0
    for place in places:
        answer = found(raw[:place], seen)
        assert answer == found(raw[:place], 0)
        if answer is not None:
            return
        seen = place


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x"]), max_size=12).map(b"".join))
def test_a_bare_line_end_is_a_cr_or_an_lf_without_the_other(raw: bytes) -> None:
    pattern = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
    assert has_bare_line_end(raw) == (pattern.search(raw) is not None)
