"""Bodies of requests: where they end, what goes on of them, and nothing that was not announced."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http1.chunked import MOST
from agent.http1.head import FieldNames
from agent.http1.request_body import BodyBroken, BodyReason, ChunkedBody, CountedBody, RequestBody

HEAD = b"POST / HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n"


def chunked(came: bytes = b"", judged: tuple[str, ...] = ()) -> ChunkedBody:
    return ChunkedBody(came, judged)


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(places) if a != b]


def passed(body: RequestBody, raw: bytes, cuts: list[int]) -> bytes:
    return b"".join(map(body.take, pieces(raw, cuts)))


def test_no_body_has_ended_before_it_began() -> None:
    body = CountedBody(0, NEXT)
    assert (body.ended, body.start(), body.rest) == (True, b"", NEXT)


def test_what_came_with_the_head_goes_first_and_once() -> None:
    body = CountedBody(5, b"hel")
    assert (body.start(), body.start(), body.ended) == (b"hel", b"", False)
    assert (body.take(b"lo" + NEXT), body.ended, body.rest) == (b"lo", True, NEXT)


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 100), max_size=5))
def test_counted_bytes_go_on_as_they_are_and_no_more(content: bytes, cuts: list[int]) -> None:
    body = CountedBody(len(content), b"")
    assert passed(body, content + NEXT, cuts) == content
    assert (body.ended, body.rest) == (True, NEXT)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.lists(st.integers(0, 100), max_size=5))
def test_chunks_are_written_anew(contents: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"00%x;ext=1\r\n%b\r\n" % (len(one), one) for one in contents) + b"0\r\n\r\n"
    body = chunked()
    written = passed(body, raw + NEXT, cuts)
    assert b";" not in written.replace(b"".join(contents), b"") or any(b";" in one for one in contents)
    assert (body.ended, body.rest) == (True, NEXT)
    app = h11.Connection(h11.SERVER)
    app.receive_data(HEAD + written)
    heard = bytearray()
    while not isinstance(event := app.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        heard += event.data if isinstance(event, h11.Data) else b""
    assert heard == b"".join(contents)


def test_chunks_that_came_with_the_head() -> None:
    body = chunked(b"3\r\nabc\r\n0\r\n\r\n" + NEXT)
    assert not body.ended
    assert (body.start(), body.ended, body.rest) == (b"3\r\nabc\r\n0\r\n\r\n", True, NEXT)
    assert (body.start(), body.take(b"x"), body.rest) == (b"", b"", NEXT + b"x")


def test_trailers_go_on_but_not_those_a_rule_looks_at() -> None:
    body = chunked(judged=("x-role",))
    assert body.take(b"0\r\nX-Sum: 1\r\nX-Role: root\r\nHost: evil\r\n\r\n") == b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("name", [b"X_Role", b"X.Role", b"SCRIPT_NAME"])
def test_a_trailer_has_a_name_that_a_header_may_have(name: bytes) -> None:
    with pytest.raises(BodyBroken) as broken:
        chunked().take(b"0\r\n%b: x\r\n\r\n" % name)
    assert broken.value.reason is BodyReason.FIELD_NAME


@pytest.mark.parametrize("name", [b"X_Role", b"X_Forwarded-Client_Cert", b"SCRIPT_NAME", b"Content_Length"])
def test_where_underscores_are_let_through_trailers_are_folded(name: bytes) -> None:
    body = ChunkedBody(b"", ("x-role",), FieldNames.UNDERSCORES)
    assert body.take(b"0\r\nX_Sum: 1\r\n%b: x\r\n\r\n" % name) == b"0\r\nX_Sum: 1\r\n\r\n"


def test_more_chunks_than_one_call_reads_are_no_end() -> None:
    body = chunked(b"1\r\nx\r\n" * (MOST + 1))
    assert body.start().endswith(b"x\r\n")
    assert (body.more, body.take(b""), body.more, body.ended) == (True, b"1\r\nx\r\n", False, False)
    with pytest.raises(BodyBroken) as broken:
        body.take(b"")
    assert broken.value.reason is BodyReason.CUT_OFF


@pytest.mark.parametrize(
    "raw",
    [b"zz\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"0\r\n folded\r\n\r\n", b"\r\n"],
    ids=repr,
)
def test_what_is_no_chunk_is_refused(raw: bytes) -> None:
    with pytest.raises(BodyBroken) as broken:
        chunked(raw).start()
    assert broken.value.reason is BodyReason.MALFORMED


@pytest.mark.parametrize("body", [CountedBody(5, b"hel"), chunked(b"3\r\nab"), chunked()], ids=repr)
def test_an_end_before_its_end_is_a_cut(body: RequestBody) -> None:
    body.start()
    with pytest.raises(BodyBroken) as broken:
        body.take(b"")
    assert broken.value.reason is BodyReason.CUT_OFF
