"""Requests one after another: the last one is remembered, and every one is read for itself."""

from __future__ import annotations

from hpack import Encoder

from agent.h2.frames import END_HEADERS, Kind, frame
from agent.h2.header_blocks import request_block, response_block
from tests.support.h2_machines import greeted

BLOCK = request_block(b"db")


def test_each_request_is_what_its_own_block_says_whatever_the_one_before_it_said() -> None:
    side = greeted()
    ordinary = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"db")]
    blocks = (BLOCK, BLOCK, request_block(b"other"), Encoder().encode(ordinary), BLOCK)
    for place, block in enumerate(blocks):
        side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 2 * place + 1, block))
    asked = [(request.method, request.authority) for request in side.requests]
    usual, other = (b"CONNECT", b"db"), (b"CONNECT", b"other")
    assert asked == [usual, usual, other, (b"GET", b"db"), usual]
    side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 11, response_block(200, [])))
    assert 11 not in side.machine.streams  # malformed, after a usual one too
    assert len(side.requests) == 5
