"""Heads: the grammar to the letter, every fault by name."""

from __future__ import annotations

import pytest

from agent.request_head import MAX_HEAD, HeadReason, HeadRefused, check_head, find_end

HOST = "Host: db\r\n"

GOOD = [
    "GET / HTTP/1.1\r\nHost: db\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "get / HTTP/1.1\r\nHost: [::1]:80\r\nX:\r\nY: \t a b \t\r\nZ: \xff\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: db\r\nContent-Length:  5 \r\n\r\n",
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
    check_head(raw)


@pytest.mark.parametrize(("head", "reason"), BAD, ids=[repr(row[0]) for row in BAD])
def test_a_fault_is_named(head: str, reason: HeadReason) -> None:
    with pytest.raises(HeadRefused) as refused:
        check_head(head.encode("latin-1"))
    assert refused.value.reason is reason
    assert refused.value.status in {400, 505}


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
