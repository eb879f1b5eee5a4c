"""Bytes of a socket, laid out as the frames in which they go."""

from __future__ import annotations

import os

import pytest

from agent.h2.frames import HEAD, HEAD_SIZE, MAX_FRAME, RECORD_FRAME
from agent.tunnel import records
from tests.support.socket_pairs import tcp_pair


@pytest.mark.parametrize(
    ("sent", "room", "read"),
    [
        (100, RECORD_FRAME, 100),
        (RECORD_FRAME, RECORD_FRAME, RECORD_FRAME),
        (3 * RECORD_FRAME, 2 * RECORD_FRAME + 5, 2 * RECORD_FRAME),
        (2 * RECORD_FRAME + 1, 1 << 20, 2 * RECORD_FRAME + 1),
    ],
)
def test_a_read_lies_as_whole_records_and_a_last_one(sent: int, room: int, read: int) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        said = os.urandom(sent)
        theirs.setblocking(True)
        theirs.sendall(said)
        assert records.read(ours, room) == read
        laid = bytes(records.frames(7, read))
    heard, at = b"", 0
    while at < len(laid):
        high, low, kind, flags, stream = HEAD.unpack_from(laid, at)
        size = high << 8 | low
        assert (kind, flags, stream) == (0, 0, 7)
        assert at % MAX_FRAME == 0, "a frame begins where a record does"
        heard += laid[at + HEAD_SIZE : at + HEAD_SIZE + size]
        at += HEAD_SIZE + size
    assert heard == said[:read]


def test_one_read_brings_no_more_than_its_records_hold() -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        assert theirs.send(bytes(4 << 20)) > records.MOST * RECORD_FRAME
        assert 0 < records.read(ours, 1 << 30) <= records.MOST * RECORD_FRAME
