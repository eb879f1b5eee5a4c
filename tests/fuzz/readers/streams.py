"""What a peer sends in a tunnel: HTTP/2, to a server and to a client, whole and in pieces.

The first byte says to which side (even: to a server), and the second how long the pieces are. The greeting is
ours, so that the bytes are read as frames. However they are cut, the end is the same; nothing is held beyond
the windows, and what goes out is what hyperframe can read.
"""

from __future__ import annotations

import struct

from hyperframe.frame import Frame

from agent.h2.core import WINDOW
from agent.h2.faults import ConnectionFault
from agent.h2.frames import (
    END_HEADERS,
    END_STREAM,
    HEAD_SIZE,
    PADDED,
    PREFACE,
    Kind,
    Setting,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from agent.h2.header_blocks import request_block, response_block
from tests.fuzz.target import Target
from tests.support.h2_machines import Side, client, server

_MOST_PIECES = 512


def fuzz_one(data: bytes) -> None:
    """Take it whole and in pieces."""
    if len(data) < 2:
        return
    to_client, size, rest = data[0] % 2 == 1, data[1] + 1, data[2:]
    whole = _heard(to_client, [rest])
    size = max(size, len(rest) // _MOST_PIECES)
    cut = _heard(to_client, [rest[at : at + size] for at in range(0, len(rest), size)])
    assert whole == cut


def _heard(to_client: bool, pieces: list[bytes]) -> object:
    side = client() if to_client else server()
    if to_client:
        side.connect()
        side.connect()
    side.machine.receive((b"" if to_client else PREFACE) + settings({}))
    try:
        for piece in pieces:
            side.machine.receive(piece)
        end: str | None = None
    except ConnectionFault as fault:
        end = fault.reason.value
        side.machine.close(fault.code, end)
    _check(side)
    return end, {number: (bytes(o.got), o.status, o.ended, o.reset) for number, o in side.owners.items()}


def _check(side: Side) -> None:
    assert side.machine.receive_window + side.machine.unreturned <= WINDOW
    out = side.machine.take().removeprefix(PREFACE)
    while out:
        found, length = Frame.parse_frame_header(memoryview(out[:HEAD_SIZE]))
        found.parse_body(memoryview(out[HEAD_SIZE : HEAD_SIZE + length]))
        out = out[HEAD_SIZE + length :]


_ASKS = frame(Kind.HEADERS, END_HEADERS, 1, request_block(b"db:443"))

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"\x00\x05" + _ASKS + frame(Kind.DATA, 0, 1, b"hello") + frame(Kind.DATA, END_STREAM, 1),
        b"\x00\x00" + _ASKS + frame(Kind.DATA, PADDED, 1, b"\x02hello\0\0") + rst_stream(1, 8),
        b"\x00\x40"
        + frame(Kind.HEADERS, 0, 1, request_block(b"db")[:4])
        + frame(Kind.CONTINUATION, END_HEADERS, 1, request_block(b"db")[4:]),
        b"\x00\x02" + settings({Setting.INITIAL_WINDOW_SIZE: 5}) + frame(Kind.PING, 0, 0, bytes(8)),
        b"\x00\xff" + _ASKS + window_update(1, 70000) + window_update(0, 1) + goaway(0, 0, b"bye"),
        b"\x01\x05"
        + frame(Kind.HEADERS, END_HEADERS, 1, response_block(200, []))
        + frame(Kind.DATA, 0, 1, b"x"),
        b"\x01\x01"
        + frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, response_block(403, [(b"proxy-status", b"x")])),
        b"\x01\x30" + goaway(1, 0) + frame(Kind.PRIORITY, 0, 3, struct.pack(">IB", 0, 16)),
    ),
)
