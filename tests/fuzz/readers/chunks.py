"""A chunked body, as callers and apps send it: any bytes, in any pieces.

The first byte is how long the pieces are, 0 for one whole. Refused by name, or written anew so that h11 reads
the same body and trailers in what is written as in what came; the pieces make no difference; and what comes
byte by byte is no more work than it is long.
"""

from __future__ import annotations

from contextlib import suppress

import h11

from agent.http1.chunked import MAX_LINE, MAX_TRAILERS, Chunks, ChunksBroken
from agent.http1.head import MAX_FIELDS, Fields
from tests.fuzz.metered import Metered
from tests.fuzz.target import Target

_ASKED = b"POST / HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: chunked\r\n\r\n"

Heard = tuple[bytes, Fields | None, bytes]  # body, trailers if it has ended, and what came after


def fuzz_one(data: bytes) -> None:
    """Read it as a whole and in pieces."""
    raw, size = data[1:], data[0] if data else 0
    whole = _read([raw])
    Metered.looked = 0
    pieces = [Metered(raw[place : place + size]) for place in range(0, len(raw), size)] if size else [raw]
    cut = _read(pieces)
    assert Metered.looked <= 16 * (len(raw) + sum(1 for _ in pieces)) + 64, (Metered.looked, len(raw))
    if whole is None or cut is None:
        assert whole is cut
        return
    written, ended, rest = whole
    assert (_by_h11(cut[0]), *cut[1:]) == (_by_h11(written), ended, rest)
    body, trailers, after = _by_h11(written)
    assert (trailers is not None, after) == (ended, b"")
    with suppress(h11.RemoteProtocolError):  # h11 knows no white space before an extension
        assert _by_h11(raw) == (body, trailers, rest)


def _read(pieces: list[bytes] | list[Metered]) -> tuple[bytes, bool, bytes] | None:
    """What is written, whether it has ended and what came after; None if it is refused."""
    chunks, written = Chunks(lambda trailers: trailers), b""
    try:
        for piece in pieces:
            written += chunks.take(piece)
            while chunks.more:
                written += chunks.take(b"")
    except ChunksBroken:
        return None
    return bytes(written), chunks.ended, bytes(chunks.rest)


def _by_h11(raw: bytes) -> Heard:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    http.receive_data(_ASKED + raw)
    http.next_event()
    heard = b""
    while isinstance(event := http.next_event(), h11.Data):
        heard += event.data
    if isinstance(event, h11.EndOfMessage):
        return heard, list(event.headers.raw_items()), http.trailing_data[0]
    return heard, None, b""


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"\0003\r\nabc\r\n0\r\n\r\nGET /next",
        b"\x01003;a=b;c\r\nabc\r\nA ;q\r\n0123456789\r\n00\r\nX-Sum: 1 \r\nY:\r\n\r\n",
        b"\x071\r\nx\r\n" * 40 + b"0\r\n\r\n",
        b"\0007fffffff\r\nabc",
        b"\000100000005\r\nabc",
        b"\0017fffffffffffffff\r\n",
        b"\x013;" + b"x" * (MAX_LINE - 3) + b"\r\nabc\r\n",
        b"\x640\r\nX: " + b"x" * MAX_TRAILERS,
        b"\0000\r\n" + b"a:\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"\0000\r\nX: a\nY: b\r\n\r\n",
        b"\0003\r\nabc\n0\r\n\r\n",
        b"\0000\r\n folded\r\n\r\n",
    ),
    words=(
        *(
            b"0\r\n\r\n",
            b"\r\n",
            b"1\r\nx\r\n",
            b";a=b",
            b"ffffffff",
            b"80000000",
            b"7fffffff",
            b"0x1",
            b"-1",
        ),
        *(b"-1", b"X: y\r\n", b" ", b"\t", b"\n", b"\r", b"00000000000000001", b"Content-Length: 5\r\n"),
    ),
)
