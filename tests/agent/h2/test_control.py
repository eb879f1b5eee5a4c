"""Frames that carry no application bytes: what they change, and how often they may come."""

from __future__ import annotations

import pytest

from agent.h2.faults import ConnectionFault, ErrorCode, FaultReason, name_of
from agent.h2.frames import (
    ACK,
    END_HEADERS,
    LARGEST_WINDOW,
    Kind,
    Setting,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from agent.h2.header_blocks import request_block
from tests.support.h2_machines import Side, exchange, greeted, pair


@pytest.fixture
def side() -> Side:
    """A server with stream 1."""
    found = greeted()
    found.machine.receive(frame(Kind.HEADERS, END_HEADERS, 1, request_block(b"db")))
    found.machine.take()
    return found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(Kind.PRIORITY, 0, 0, bytes(5)), FaultReason.WRONG_STREAM),
        (frame(Kind.PRIORITY, 0, 1, bytes(4)), FaultReason.FRAME_SIZE),
        (frame(Kind.PUSH_PROMISE, 0, 1, bytes(8)), FaultReason.UNEXPECTED_FRAME),
        (frame(Kind.RST_STREAM, 0, 1, bytes(3)), FaultReason.FRAME_SIZE),
        (rst_stream(3, 0), FaultReason.WRONG_STREAM),
        (rst_stream(0, 0), FaultReason.WRONG_STREAM),
        (frame(Kind.SETTINGS, 0, 1), FaultReason.WRONG_STREAM),
        (frame(Kind.SETTINGS, 0, 0, bytes(5)), FaultReason.FRAME_SIZE),
        (frame(Kind.SETTINGS, ACK, 0, bytes(6)), FaultReason.FRAME_SIZE),
        (settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), FaultReason.SETTINGS),
        (settings({Setting.MAX_FRAME_SIZE: 16383}), FaultReason.SETTINGS),
        (settings({Setting.MAX_FRAME_SIZE: 2**24}), FaultReason.SETTINGS),
        (settings({Setting.ENABLE_PUSH: 2}), FaultReason.SETTINGS),
        (frame(Kind.PING, 0, 1, bytes(8)), FaultReason.WRONG_STREAM),
        (frame(Kind.PING, 0, 0, bytes(7)), FaultReason.FRAME_SIZE),
        (frame(Kind.GOAWAY, 0, 1, bytes(8)), FaultReason.WRONG_STREAM),
        (frame(Kind.GOAWAY, 0, 0, bytes(7)), FaultReason.FRAME_SIZE),
        (frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)), FaultReason.FRAME_SIZE),
        (window_update(0, 0), FaultReason.ZERO_INCREMENT),
        (window_update(0, LARGEST_WINDOW), FaultReason.WINDOW_OVERFLOW),
        (window_update(3, 1), FaultReason.WRONG_STREAM),
        (
            window_update(1, 1) + settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}),
            FaultReason.WINDOW_OVERFLOW,
        ),
        (settings({}) * 40, FaultReason.SETTINGS_FLOOD),
        (frame(Kind.PING, 0, 0, bytes(8)) * 65, FaultReason.PING_FLOOD),
        (frame(Kind.PING, ACK, 0, bytes(8)) * 65, FaultReason.PING_FLOOD),
        (goaway(0, 0) * 40, FaultReason.SETTINGS_FLOOD),
        (frame(Kind.PRIORITY, 0, 1, bytes(5)) * 2001, FaultReason.FRAME_FLOOD),
        (frame(0xFA, 0, 1, b"x") * 2001, FaultReason.FRAME_FLOOD),
        (rst_stream(1, 0) * 2002, FaultReason.FRAME_FLOOD),
    ],
)
def test_a_frame_that_may_not_come_ends_the_connection_by_name(
    side: Side, data: bytes, reason: FaultReason
) -> None:
    with pytest.raises(ConnectionFault) as caught:
        side.machine.receive(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (window_update(1, 0), ErrorCode.PROTOCOL_ERROR),
        (window_update(1, LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    ],
)
def test_a_wrong_window_of_a_stream_resets_it_alone(side: Side, data: bytes, code: ErrorCode) -> None:
    side.machine.receive(data)
    assert side.owners[1].reset == code
    assert side.machine.take() == rst_stream(1, code)


def test_settings_and_pings_are_answered(side: Side) -> None:
    side.machine.receive(settings({Setting.HEADER_TABLE_SIZE: 0}) + frame(Kind.PING, 0, 0, b"12345678"))
    assert side.machine.take() == frame(Kind.SETTINGS, ACK, 0) + frame(Kind.PING, ACK, 0, b"12345678")


def test_a_ping_of_ours_is_answered_by_the_peer() -> None:
    one, other = pair()
    one.machine.ping()
    exchange(one, other)
    assert one.pongs == 1


def test_a_smaller_window_may_be_negative_and_opens_again(side: Side) -> None:
    owner = side.owners[1]
    assert owner.stream is not None
    side.machine.send(owner.stream, bytes(1000))
    side.machine.receive(settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    assert (owner.stream.send_window, side.machine.room(owner.stream)) == (-990, 0)
    side.machine.receive(window_update(1, 990))
    assert (side.machine.room(owner.stream), owner.rooms) == (0, 0)
    side.machine.receive(window_update(1, 5))
    assert (side.machine.room(owner.stream), owner.rooms) == (5, 1)


def test_frames_late_for_a_stream_that_is_over_are_ignored(side: Side) -> None:
    side.machine.receive(rst_stream(1, 8) + window_update(1, 5) + rst_stream(1, 8))
    assert side.owners[1].reset == 8


def test_streams_that_the_server_has_not_seen_come_back() -> None:
    one, _ = pair()
    seen, unseen = one.connect(), one.connect()
    one.machine.receive(goaway(1, 0, b"bye"))
    assert (seen.reset, unseen.reset) == (None, ErrorCode.REFUSED_STREAM)
    assert one.goaways == [(0, "GOAWAY NO_ERROR: 'bye'")]


def test_any_error_code_has_a_name() -> None:
    assert (name_of(8), name_of(0xDEAD)) == ("CANCEL", "error code 0xdead")
