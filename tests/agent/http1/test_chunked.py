"""Chunks: written anew whatever the cuts, refused to the letter, and as h11 reads them."""

from __future__ import annotations

import re
from itertools import pairwise

import h11
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from agent.http1.chunked import MAX_LINE, MAX_TRAILERS, MOST, Chunks, ChunksBroken
from agent.http1.head import MAX_FIELDS, Fields

NEXT = b"GET /next"
ASKED = b"POST / HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: chunked\r\n\r\n"


def all_of(trailers: Fields) -> Fields:
    return trailers


def read(*parts: bytes) -> tuple[bytes, Chunks]:
    """What is written of these parts, of which each write stands by itself."""
    chunks = Chunks(all_of)
    written = []
    for part in parts:
        written.append(taken(chunks, part))
        while chunks.more:
            written.append(taken(chunks, b""))
    return b"".join(written), chunks


def taken(chunks: Chunks, part: bytes) -> bytes:
    """What is written: one chunk at most before the last, and all that it announces stands behind it."""
    written = chunks.take(part)
    match = re.match(rb"([1-9a-f][0-9a-f]{0,7})\r\n", written)
    if match is not None:
        end = match.end() + int(match[1], 16)
        assert written[end : end + 2] == b"\r\n"
        written_then = written[end + 2 :]
    else:
        written_then = written
    assert written_then.startswith(b"0\r\n") if chunks.ended and written_then else not written_then
    return written


def cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(raw) + 1) for place in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(places) if a != b]


WRITTEN = [
    (b"0\r\n\r\n", b"0\r\n\r\n"),
    (b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    (b"003;a=b;c\r\nabc\r\nA ;q\r\n0123456789\r\n00\r\n\r\n", b"d\r\nabc0123456789\r\n0\r\n\r\n"),
    (b"3 \t\r\n\r\n0\r\n0\r\n\r\n", b"3\r\n\r\n0\r\n0\r\n\r\n"),
    (b"1\r\nx\r\n0;e\r\nX-Sum: 1 \r\nY:\r\n\r\n", b"1\r\nx\r\n0\r\nX-Sum: 1\r\nY: \r\n\r\n"),
    (b"7fffffff\r\nabc", b"3\r\nabc\r\n"),
    (b"000000007FFFFFFF\r\nabc", b"3\r\nabc\r\n"),
]


@pytest.mark.parametrize(("raw", "expected"), WRITTEN, ids=repr)
def test_a_body_is_written_anew_in_chunks_of_what_has_come(raw: bytes, expected: bytes) -> None:
    assert read(raw)[0] == expected


@pytest.mark.parametrize(
    ("raw", "expected"), [row for row in WRITTEN if row[1].endswith(b"0\r\n\r\n")], ids=repr
)
def test_however_it_is_cut_its_bytes_are_the_same(raw: bytes, expected: bytes) -> None:
    for place in range(len(raw) + 1):
        written, chunks = read(*(part for part in (raw[:place], raw[place:] + NEXT) if part))
        assert (by_h11(written), chunks.ended, chunks.rest) == (by_h11(expected), True, NEXT)
    written, chunks = read(*(bytes([byte]) for byte in raw))
    assert (by_h11(written), chunks.ended, chunks.rest) == (by_h11(expected), True, b"")


def test_bytes_go_on_before_their_chunk_is_whole() -> None:
    chunks = Chunks(all_of)
    assert [chunks.take(part) for part in (b"a", b"\r\nabc", b"defghij\r", b"\n")] == [
        *(b"", b"3\r\nabc\r\n", b"7\r\ndefghij\r\n", b""),
    ]


@pytest.mark.parametrize("size", [b"100000005", b"80000000", b"7fffffffffffffff", b"ffffffffffffffff"])
def test_a_size_of_over_31_bits_is_refused(size: bytes) -> None:
    with pytest.raises(ChunksBroken):
        read(size + b"\r\nhello")


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"001;\r\nx\r\n"])
def test_a_call_reads_so_many_chunks_and_says_that_there_are_more(chunk: bytes) -> None:
    chunks = Chunks(all_of)
    assert chunks.take(chunk * (MOST + 1) + b"0\r\n\r\n" + NEXT) == b"%x\r\n%b\r\n" % (MOST, b"x" * MOST)
    assert (chunks.more, chunks.ended) == (True, False)
    assert chunks.take(b"") == b"1\r\nx\r\n0\r\n\r\n"
    assert (chunks.more, chunks.ended, chunks.rest) == (False, True, NEXT)


@pytest.mark.parametrize("last", [b"", b"5", b"5\r\nab"])
def test_there_are_no_more_where_the_rest_has_not_come(last: bytes) -> None:
    chunks = Chunks(all_of)
    written = chunks.take(b"1\r\nx\r\n" * MOST + last)
    while chunks.more:
        written += chunks.take(b"")
    assert by_h11(written)[0] == b"x" * MOST + last[3:]


@pytest.mark.parametrize("start", [b"0\r\n", b""])
def test_a_line_or_trailers_that_come_byte_by_byte_are_searched_once(start: bytes) -> None:
    chunks = Chunks(all_of)
    chunks.take(start + b"5;" + b"x" * 500)
    assert chunks._seen == 502
    chunks._held = b"\n\n" + chunks._held[2:]  # what no reader would let pass is not looked at again
    assert chunks.take(b"x") == b""
    assert chunks._seen == 503


def test_there_are_at_most_100_trailers() -> None:
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(MAX_FIELDS))
    assert read(b"0\r\n" + lines + b"\r\n")[1].ended
    with pytest.raises(ChunksBroken):
        read(b"0\r\n" + lines + b"a:\r\n\r\n")


def test_trailers_are_asked_for() -> None:
    chunks = Chunks(lambda trailers: [field for field in trailers if field[0] != b"Secret"])
    assert chunks.take(b"0\r\nSecret: 1\r\nX: 2\r\n\r\n") == b"0\r\nX: 2\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"zz\r\n",
            b"\r\n",
            b"\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"0x1\r\n",
            b"1_0\r\n",
            b"1\n",
            b"1\rx\n",
        ),
        *(b"1" * 17 + b"\r\n", b"3 3\r\n", b"3;a\nb\r\n", b"3;\0\r\n", b"3\r\r\n", b";a\r\n"),
        *(b"3\r\nabcd", b"3\r\nabc\n", b"3\r\nabc\rx", b"3\r\nabc0\r\n\r\n", b"3\r\nabc\r\n\r\n"),
        *(b"0\r\n folded\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: \0\r\n\r\n"),
        *(b"0\r\nX: a\nY: b\r\n\r\n", b"0\r\n\nX: a\r\n\r\n"),
        *(b"0\r\n\n", b"0\r\nX: a\n", b"0\r\nX: a\rb"),  # at once: other readers might see an end there
        b"3;" + b"x" * MAX_LINE,
        b"3;" + b"x" * MAX_LINE + b"\r\n",
        b"0\r\nX: " + b"x" * MAX_TRAILERS,
    ],
    ids=repr,
)
def test_what_is_no_chunk_is_refused(raw: bytes) -> None:
    with pytest.raises(ChunksBroken):
        read(raw)
    with pytest.raises(ChunksBroken):
        read(*(bytes([byte]) for byte in raw))


pieces = st.sampled_from(
    [
        *(b"0", b"1", b"3", b"a", b"F", b"00", b"5;x=y", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"abc", b"x"),
        *(
            b"\n",
            b"\r",
            b" ",
            b"0\r\n\r\n",
            b"3\r\nabc\r\n",
            b"1\r\n\n\r\n",
            b"X: y\r\n",
            b" folded",
            b";",
            b"-",
        ),
    ]
)
whole = st.builds(
    lambda bodies, end: b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies) + end,
    st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b""]),
)
raws = st.one_of(
    whole, st.builds(bytes.__add__, whole, st.binary(max_size=4)), st.lists(pieces).map(b"".join)
)


def by_h11(raw: bytes) -> tuple[bytes, Fields | None, bytes]:
    """The body, its trailers if it has ended, and what came after."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(ASKED + raw)
    http.next_event()
    heard = bytearray()
    while isinstance(event := http.next_event(), h11.Data):
        heard += event.data
    if isinstance(event, h11.EndOfMessage):
        return bytes(heard), list(event.headers.raw_items()), http.trailing_data[0]
    return bytes(heard), None, b""


# RFC 9112 §7.1.1 has a recipient read whitespace before an extension ("bad whitespace"); h11 refuses it.
BAD_WHITESPACE = re.compile(rb"[0-9A-Fa-f][ \t]+;")


@given(raws, st.lists(st.integers(0, 200), max_size=4))
@example(b"0 ;\r\n", [])
def test_what_passes_h11_reads_the_same_and_so_it_does_what_is_written(raw: bytes, cuts: list[int]) -> None:
    try:
        written, chunks = read(*cut(raw, cuts))
    except ChunksBroken:
        event("broken")
        return
    event("ended" if chunks.ended else "not ended")
    try:
        body, trailers, rest = by_h11(raw)
    except h11.RemoteProtocolError:
        assert BAD_WHITESPACE.search(raw)
        event("bad whitespace")
        return
    assert (trailers is not None, rest) == (chunks.ended, chunks.rest)
    assert by_h11(written) == (body, trailers, b"")


@given(raws, st.lists(st.integers(0, 200), max_size=4))
def test_the_cuts_make_no_difference(raw: bytes, cuts: list[int]) -> None:
    def outcome(*parts: bytes) -> tuple[object, bool, bytes] | None:
        try:
            written, chunks = read(*parts)
        except ChunksBroken:
            return None
        return by_h11(written), chunks.ended, chunks.rest

    assert outcome(*cut(raw, cuts)) == outcome(*cut(raw, []))
