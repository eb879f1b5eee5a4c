"""Windows: what a reader may make us hold, and what a peer may send; beside two machines of ours."""

from __future__ import annotations

from agent.h2.core import MOST_EXTRA, MOST_STREAM_WINDOW, USUAL_STREAM_WINDOW, WINDOW
from agent.h2.faults import ErrorCode
from agent.h2.frames import DEFAULT_WINDOW
from tests.support.h2_machines import Owner, Side, exchange, pair, pour


def test_a_slow_reader_holds_its_window_and_stops_no_other_stream() -> None:
    one, other = pair()
    other.slow = True
    slow = one.connect()
    exchange(one, other)
    other.slow = False
    quick = one.connect()
    exchange(one, other)
    assert slow.stream is not None
    assert quick.stream is not None
    rest = pour(one, slow.stream, b"s" * 100_000)
    exchange(one, other)
    assert len(rest) == 100_000 - DEFAULT_WINDOW
    assert pour(one, slow.stream, rest) == rest
    left = bytes(5_000_000)
    while left:
        left = pour(one, quick.stream, left)
        exchange(one, other)
    assert len(other.owners[3].got) == 5_000_000
    assert other.owners[1].held == DEFAULT_WINDOW
    other.owners[1].read()
    exchange(one, other)
    assert slow.rooms == 1
    assert not pour(one, slow.stream, rest)


def poured(one: Side, other: Side, mebibytes: int) -> Owner:
    """A new stream of the client, and so much through it, as fast as its reader is."""
    near = one.connect()
    exchange(one, other)
    assert near.stream is not None
    left = bytes(mebibytes << 20)
    while left:
        left = pour(one, near.stream, left)
        exchange(one, other)
    return near


def windows(side: Side) -> list[int]:
    """The sizes at which its streams' windows are kept."""
    return [stream.target for stream in side.machine.streams.values()]


def test_the_only_quick_reader_gets_the_widest_window() -> None:
    one, other = pair()
    poured(one, other, 20)
    assert windows(other) == [MOST_STREAM_WINDOW] == [4 * USUAL_STREAM_WINDOW]
    far = other.owners[1].stream
    assert far is not None
    other.machine.reset(far, ErrorCode.CANCEL)
    assert other.machine._extra == 0


def test_a_reader_that_bytes_wait_for_gets_a_window_of_usual_size() -> None:
    one, other = pair()
    other.slow = True
    near = one.connect()
    exchange(one, other)
    assert near.stream is not None
    far = other.owners[1]
    for _ in range(400):
        pour(one, near.stream, bytes(MOST_STREAM_WINDOW))
        exchange(one, other)
        far.held -= (some := min(far.held, 40_000))
        other.machine.consumed(other.machine.streams[1], some)
    assert windows(other) == [USUAL_STREAM_WINDOW]
    assert far.held <= USUAL_STREAM_WINDOW


def test_the_widest_windows_leave_half_of_all_room_to_windows_of_usual_size() -> None:
    one, other = pair()
    for _ in range(12):
        poured(one, other, 20)
    first, second, *_ = found = windows(other)
    assert first == second == MOST_STREAM_WINDOW
    assert sum(window >= USUAL_STREAM_WINDOW for window in found) >= 10
    assert sum(window - DEFAULT_WINDOW for window in found) == other.machine._extra <= MOST_EXTRA


def test_all_streams_together_hold_no_more_than_the_connections_window() -> None:
    one, other = pair()
    other.machine.most_streams = one.machine.peer_most_streams = 2000
    other.slow = True
    held = 0
    for _ in range(WINDOW // DEFAULT_WINDOW + 20):
        near = one.connect()
        assert near.stream is not None
        pour(one, near.stream, bytes(DEFAULT_WINDOW))
        exchange(one, other)
    held = sum(owner.held for owner in other.owners.values())
    assert held == WINDOW
    assert one.machine.send_window == 0
    for owner in other.owners.values():
        owner.read()
    exchange(one, other)
    assert one.rooms == 1
