"""The machine: streams, bytes, ends, windows; beside two of ours and beside `h2`."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest

from agent.h2.faults import ConnectionFault, ErrorCode, FaultReason
from agent.h2.frames import END_HEADERS, END_STREAM, MAX_FRAME, PADDED, Kind, frame
from agent.h2.header_blocks import request_block, response_block
from tests.support.h2_machines import Side, client, exchange, greeted, pair, server

BLOCK = request_block(b"db")


def opened() -> tuple[Side, int]:
    """A server with one stream of its peer."""
    side = greeted()
    side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 1, BLOCK))
    side.machine.take()
    return side, 1


def fault(side: Side, data: bytes) -> tuple[FaultReason, ErrorCode]:
    with pytest.raises(ConnectionFault) as caught:
        side.machine.receive(data)
    return caught.value.reason, caught.value.code


def theirs(*, client_side: bool) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=client_side, header_encoding=None)
    machine = h2.connection.H2Connection(config=config)
    machine.initiate_connection()
    return machine


# --- two of ours ---


def test_bytes_go_both_ways_and_each_side_ends_by_itself() -> None:
    one, other = pair()
    near = one.connect(b"db.default.dc2")
    assert near.stream is not None
    one.machine.send(near.stream, b"early")  # before the response: no round trip is waited for
    exchange(one, other)
    far = other.owners[1]
    assert (bytes(far.got), near.status, other.requests[0].authority) == (b"early", 200, b"db.default.dc2")
    one.machine.end(near.stream)
    exchange(one, other)
    assert far.ended
    assert far.stream is not None
    other.machine.send(far.stream, b"answer after the half-close")
    other.machine.end(far.stream)
    exchange(one, other)
    assert (bytes(near.got), near.ended) == (b"answer after the half-close", True)
    assert not one.machine.streams
    assert not other.machine.streams


def test_a_refusal_ends_the_stream_and_no_other() -> None:
    one, other = pair()
    near = one.connect()
    exchange(one, other)
    other.refusal = (403, [(b"proxy-status", b'db; details="intention_deny"')])
    refused = one.connect()
    exchange(one, other)
    assert (refused.status, refused.fields[1]) == (403, (b"proxy-status", b'db; details="intention_deny"'))
    assert refused.ended
    assert list(one.machine.streams) == list(other.machine.streams) == [1]
    assert near.reset is None


def test_late_bytes_of_a_stream_that_we_have_reset_are_thrown_away_and_given_back() -> None:
    one, other = pair()
    near = one.connect()
    exchange(one, other)
    assert near.stream is not None
    far = other.owners[1].stream
    assert far is not None
    one.machine.send(near.stream, b"x" * 1000)
    other.machine.reset(far, ErrorCode.CANCEL)
    exchange(one, other)
    assert near.reset == ErrorCode.CANCEL
    assert other.machine.unreturned == 1000


def test_streams_opened_before_goaway_was_seen_are_served_and_later_ones_come_back() -> None:
    one, other = pair()
    near = one.connect()
    other.machine.retire()
    exchange(one, other)  # the request, GOAWAY and its PING cross
    assert near.status == 200
    assert not one.machine.takes_streams
    assert other.machine.refuses_after == 1
    assert one.goaways[0] == (0, "GOAWAY NO_ERROR")
    late = one.connect()  # a client that does not care
    exchange(one, other)
    assert late.reset == ErrorCode.REFUSED_STREAM
    assert near.reset is None


def test_a_client_opens_no_more_streams_than_the_server_takes() -> None:
    one, other = client(), server(most_streams=2)
    exchange(one, other)
    one.connect()
    one.connect()
    assert not one.machine.takes_streams
    over = one.connect()
    exchange(one, other)
    assert over.reset == ErrorCode.REFUSED_STREAM


# --- beside h2 ---


def test_a_client_by_h2_is_served() -> None:
    oracle, side = theirs(client_side=True), server()
    events: list[h2.events.Event] = []

    def settle() -> None:
        while (out := oracle.data_to_send()) or side.machine.out:
            side.machine.receive(out)
            events.extend(oracle.receive_data(side.machine.take()))

    oracle.send_headers(1, [(":method", "CONNECT"), (":authority", "db:443")])
    settle()
    oracle.send_data(1, b"hello", pad_length=7)
    oracle.send_data(1, b"x" * 16384)
    settle()
    owner = side.owners[1]
    assert bytes(owner.got) == b"hello" + b"x" * 16384
    assert owner.stream is not None
    side.machine.send(owner.stream, b"answer" * 10000)
    settle()
    oracle.end_stream(1)
    side.machine.end(owner.stream)
    settle()
    answered = next(event for event in events if isinstance(event, h2.events.ResponseReceived))
    assert answered.headers == [(b":status", b"200")]
    got = b"".join(event.data or b"" for event in events if isinstance(event, h2.events.DataReceived))
    assert got == b"answer" * 10000
    assert owner.ended
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)
    assert not side.machine.streams


def test_a_server_by_h2_serves_us() -> None:
    oracle, side = theirs(client_side=False), client()
    owner = side.connect(b"db:443")
    assert owner.stream is not None

    def settle() -> list[h2.events.Event]:
        events = oracle.receive_data(side.machine.take())
        side.machine.receive(oracle.data_to_send())
        return events

    asked = next(event for event in settle() if isinstance(event, h2.events.RequestReceived))
    assert asked.headers == [(b":method", b"CONNECT"), (b":authority", b"db:443")]
    oracle.send_headers(1, [(":status", "200"), ("server", "h2")])
    oracle.send_data(1, b"hello")
    settle()
    assert (owner.status, bytes(owner.got)) == (200, b"hello")
    side.machine.send(owner.stream, b"y" * 40000)
    side.machine.end(owner.stream)
    got = b"".join(event.data or b"" for event in settle() if isinstance(event, h2.events.DataReceived))
    assert got == b"y" * 40000
    oracle.reset_stream(1, 2)
    settle()
    assert (owner.reset, owner.detail) == (2, "RST_STREAM INTERNAL_ERROR")


# --- hostile bytes ---


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(Kind.PING, 0, 0, bytes(8))]
)
def test_another_beginning_is_a_bad_preface(data: bytes) -> None:
    assert fault(server(), data)[0] is FaultReason.BAD_PREFACE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(Kind.DATA, 0, 1, bytes(MAX_FRAME + 1)), FaultReason.FRAME_SIZE),
        (frame(Kind.HEADERS, END_HEADERS, 3, bytes(MAX_FRAME + 1)), FaultReason.FRAME_SIZE),
        (frame(Kind.DATA, 0, 3, b"x"), FaultReason.WRONG_STREAM),
        (frame(Kind.DATA, 0, 0, b"x"), FaultReason.WRONG_STREAM),
        (frame(Kind.DATA, PADDED, 1, b"\x05abc"), FaultReason.PADDING),
        (frame(Kind.HEADERS, END_HEADERS | PADDED, 3, b"\x01"), FaultReason.PADDING),
        (frame(Kind.HEADERS, END_HEADERS, 2, BLOCK), FaultReason.WRONG_STREAM),
        (frame(Kind.HEADERS, END_HEADERS, 0, BLOCK), FaultReason.WRONG_STREAM),
        (frame(Kind.HEADERS, END_HEADERS | 0x20, 3, b"1234"), FaultReason.FRAME_SIZE),
        (frame(Kind.HEADERS, END_HEADERS, 3, b"\xff\xff\xff"), FaultReason.HEADER_BLOCK),
        (frame(Kind.HEADERS, 0, 3, BLOCK) + frame(Kind.DATA, 0, 1, b"x"), FaultReason.INTERRUPTED_BLOCK),
        (frame(Kind.HEADERS, 0, 3, BLOCK) + frame(Kind.CONTINUATION, 4, 1), FaultReason.INTERRUPTED_BLOCK),
        (frame(Kind.HEADERS, 0, 3) + frame(Kind.CONTINUATION, 0, 3) * 9, FaultReason.CONTINUATION_FLOOD),
        (
            frame(Kind.HEADERS, 0, 3, bytes(9000)) + frame(Kind.CONTINUATION, 0, 3, bytes(9000)),
            FaultReason.CONTINUATION_FLOOD,
        ),
        (frame(Kind.CONTINUATION, 4, 3, BLOCK), FaultReason.UNEXPECTED_FRAME),
        (frame(Kind.DATA, 0, 1) * 2001, FaultReason.FRAME_FLOOD),
        (frame(Kind.DATA, 0, 1, bytes(MAX_FRAME)) * 5, FaultReason.WINDOW_EXCEEDED),
    ],
)
def test_bytes_that_break_the_protocol_end_the_connection_by_name(data: bytes, reason: FaultReason) -> None:
    side, _ = opened()
    side.owners[1].slow = True
    assert fault(side, data)[0] is reason


def test_a_frame_on_a_stream_that_has_ended_ends_the_connection() -> None:
    side, number = opened()
    side.machine.receive(frame(Kind.RST_STREAM, 0, number, bytes(4)))
    assert fault(side, frame(Kind.DATA, 0, number, b"x")) == (
        FaultReason.CLOSED_STREAM,
        ErrorCode.STREAM_CLOSED,
    )


def test_data_after_the_end_resets_the_stream_alone() -> None:
    side, number = opened()
    side.machine.receive(frame(Kind.DATA, END_STREAM, number) + frame(Kind.DATA, 0, number, b"x"))
    assert side.owners[number].reset == ErrorCode.STREAM_CLOSED
    assert not side.machine.streams


def test_trailers_and_malformed_requests_reset_the_stream_alone() -> None:
    side, number = opened()
    side.machine.receive(frame(Kind.HEADERS, END_HEADERS, number, BLOCK))
    assert side.owners[number].reset == ErrorCode.PROTOCOL_ERROR
    side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 3, response_block(200, [])))
    assert 3 not in side.machine.streams
    side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 5, BLOCK))
    assert list(side.machine.streams) == [5]


def test_a_block_in_continuations_is_read_whole() -> None:
    side = greeted()
    side.machine.receive(
        frame(Kind.HEADERS, 0, 1, BLOCK[:3])
        + frame(Kind.CONTINUATION, 0, 1, BLOCK[3:5])
        + frame(Kind.CONTINUATION, END_HEADERS, 1, BLOCK[5:])
    )
    assert side.requests[0].authority == b"db"


def test_informational_responses_are_passed_over() -> None:
    side = client()
    side.machine.receive(server().machine.take())
    owner = side.connect()
    for status in (103, 204):
        side.machine.receive(frame(Kind.HEADERS, END_HEADERS, 1, response_block(status, [])))
    assert owner.status == 204


def test_resets_of_streams_that_were_just_opened_are_bounded_by_rate() -> None:
    side = greeted()

    def rapid(number: int) -> bytes:
        return frame(Kind.HEADERS, END_HEADERS, number, BLOCK) + frame(Kind.RST_STREAM, 0, number, bytes(4))

    for number in range(1, 2001, 2):
        side.machine.receive(rapid(number))
    side.machine.take()
    side.now += 1.0
    for number in range(2001, 2401, 2):
        side.machine.receive(rapid(number))
    assert fault(side, rapid(2401)) == (FaultReason.RESET_FLOOD, ErrorCode.ENHANCE_YOUR_CALM)


def test_a_refused_stream_counts_against_a_peer_that_reads_nothing() -> None:
    side = greeted()
    side.refusal = (403, [(b"proxy-status", b"x" * 1000)])
    flood = b"".join(frame(Kind.HEADERS, END_HEADERS, number, BLOCK) for number in range(1, 3001, 2))
    assert fault(side, flood)[0] is FaultReason.ANSWERS_UNREAD


def test_close_names_the_fault_to_the_peer() -> None:
    one, other = pair()
    other.machine.close(ErrorCode.ENHANCE_YOUR_CALM, "ping_flood")
    exchange(one, other)
    assert one.goaways == [(11, "GOAWAY ENHANCE_YOUR_CALM: 'ping_flood'")]
