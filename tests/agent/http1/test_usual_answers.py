"""Heads of answers that are read line by line: the same comes of them as of the whole head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.response_fast import read_fast
from agent.http1.usual_answers import MAX_HEAD, UsualAnswers
from tests.agent.http1.test_response_fast import NOT_PLAIN, OK, lines, methods, statuses


def test_a_line_is_looked_up_once_the_app_has_said_it() -> None:
    answers = UsualAnswers()
    for number in range(3):
        raw = OK + b"Server: x\r\nContent-Length: 2\r\nX-Id: %d\r\nConnection: keep-alive\r\n\r\nok" % number
        assert answers.read(raw, b"GET") == read_fast(raw, b"GET")
    assert answers._lines.keys() == {
        *(b"HTTP/1.1 200 OK", b"Server: x", b"Content-Length: 2", b"X-Id: 2", b"Connection: keep-alive")
    }


@pytest.mark.parametrize("size", [10, MAX_HEAD])
def test_a_head_of_any_length_is_read(size: int) -> None:
    raw = OK + b"X: " + size * b"y" + b"\r\nContent-Length: 2\r\n\r\nok"
    found = UsualAnswers().read(raw, b"GET")
    assert found is not None
    assert found == read_fast(raw, b"GET")


@pytest.mark.parametrize("raw", NOT_PLAIN, ids=repr)
def test_what_is_not_plain_is_left_to_h11(raw: bytes) -> None:
    answers = UsualAnswers()
    for _ in range(2):
        assert answers.read(raw, b"GET") is None


def test_a_status_is_no_header_and_a_header_no_status() -> None:
    answers = UsualAnswers()
    assert answers.read(b"HTTP/1.1 200 a:b\r\nX: y\r\nContent-Length: 0\r\n\r\n", b"GET") is not None
    assert answers.read(b"HTTP/1.1 200 a:b\r\nHTTP/1.1 200 a:b\r\nContent-Length: 0\r\n\r\n", b"GET") is None
    assert answers.read(b"X: y\r\nContent-Length: 0\r\n\r\n", b"GET") is None


answers = st.builds(
    lambda status, fields, body: (
        b"HTTP/1.1 %b\r\n%b\r\n" % (status, b"".join(f + b"\r\n" for f in fields)) + body
    ),
    statuses,
    st.lists(st.one_of(lines, st.binary(max_size=9)), max_size=6),
    st.binary(max_size=9),
)


@given(st.lists(st.tuples(answers, methods), min_size=1, max_size=5))
def test_it_is_what_the_whole_heads_reader_makes_of_it(said: list[tuple[bytes, bytes]]) -> None:
    by = UsualAnswers()
    for raw, method in said:
        assert by.read(raw, method) == read_fast(raw, method)
