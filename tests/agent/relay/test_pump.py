"""The pump between scripted legs: every way of blocking and ending, without a kernel."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from agent.relay.pump import BUFFER, BURSTS, COLLECT, RECORD
from agent.relay.splice import NONE, READ, WRITE, Ending
from tests.support.scripted_answers import MANY, Bench


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.run()
    return bench


def test_a_small_message_costs_one_read_and_one_write(bench: Bench) -> None:
    bench.plain.calls = bench.tls.calls = 0
    bench.plain.arrives(b"question")
    bench.run()
    assert (bytes(bench.tls.sent), bench.plain.calls, bench.tls.calls) == (b"question", 1, 1)
    bench.tls.arrives(b"answer")
    bench.run()
    assert (bytes(bench.plain.sent), bench.plain.calls, bench.tls.calls) == (b"answer", 2, 2)
    assert (bench.progress.to_tls, bench.progress.to_plain) == (8, 6)
    assert not bench.ended()


def test_full_records_are_collected_into_one_write(bench: Bench) -> None:
    record = bytes(RECORD)
    bench.tls.arrives(*[record] * (COLLECT // RECORD))
    bench.plain.calls = 0
    bench.turn()
    assert len(bench.plain.sent) == COLLECT
    assert bench.plain.calls == 1


def test_one_event_moves_a_bounded_number_of_buffers(bench: Bench) -> None:
    bench.tls.arrives(*[bytes(RECORD)] * 1000)
    bench.turn(["tls"])
    assert len(bench.plain.sent) == BURSTS * COLLECT
    bench.plain.arrives(*[bytes(BUFFER)] * 100)
    bench.turn(["plain"])
    assert len(bench.tls.sent) == BURSTS * BUFFER


def test_what_openssl_had_decrypted_is_moved_at_the_start() -> None:
    bench = Bench()
    bench.tls.arrives(b"early", end=True)
    bench.turn()
    assert bytes(bench.plain.sent) == b"early"


@pytest.mark.parametrize("size", [5, RECORD, RECORD + 1, 3 * RECORD])
def test_a_plain_leg_that_takes_only_part(bench: Bench, size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    records = [payload[at : at + RECORD] for at in range(0, size, RECORD)]
    bench.plain.room = 3
    bench.tls.arrives(*records, b"more")
    bench.run()
    assert bench.tls_watch.mask == NONE  # nothing more is read for a leg that is blocked
    assert bench.plain_watch.mask == READ | WRITE
    for _ in range(3):
        bench.plain.room = size // 2
        bench.run()
    bench.plain.room = MANY
    bench.run()
    assert bytes(bench.plain.sent) == b"".join(records) + b"more"
    assert (bench.plain_watch.mask, bench.tls_watch.mask) == (READ, READ)
    assert bench.splice.plain_rest == b""  # an idle connection owns no buffer


def test_a_tls_leg_that_takes_only_part(bench: Bench) -> None:
    payload = bytes(range(256)) * 256
    bench.tls.room = RECORD
    bench.plain.arrives(payload, b"more")
    bench.run()
    assert len(bench.tls.sent) == RECORD
    assert (bench.plain_watch.mask, bench.tls_watch.mask) == (NONE, READ | WRITE)
    bench.tls.room = RECORD + 1
    bench.run()
    assert len(bench.tls.sent) == 2 * RECORD  # and one byte of the third is on its way
    bench.tls.room = MANY
    bench.run()
    assert bytes(bench.tls.sent) == payload + b"more"
    assert bench.splice.tls_rest == b""


def test_a_write_that_wants_a_read(bench: Bench) -> None:
    bench.tls.write_wants_read = 1
    bench.plain.arrives(b"question")
    bench.turn(["plain"])
    assert bench.plain_watch.mask == NONE
    bench.tls.arrives(b"answer")
    bench.run()
    assert (bytes(bench.tls.sent), bytes(bench.plain.sent)) == (b"question", b"answer")


def test_a_read_that_wants_a_write(bench: Bench) -> None:
    bench.tls.read_wants_write = 1
    bench.tls.room = 0
    bench.tls.arrives(b"answer")
    bench.run()
    assert bench.tls_watch.mask == WRITE  # to watch for READ would spin
    bench.tls.room = MANY
    bench.run()
    assert bytes(bench.plain.sent) == b"answer"
    assert bench.tls_watch.mask == READ


def test_a_read_that_wants_a_write_among_full_records(bench: Bench) -> None:
    bench.tls.arrives(bytes(RECORD), bytes(RECORD))
    original, seen = bench.tls.recv, []

    def recv(size: int, /) -> bytes:
        seen.append(size)
        if len(seen) == 2:
            raise SSL.WantWriteError
        return original(size)

    bench.tls.recv = recv  # type: ignore[method-assign]
    bench.run()
    assert len(bench.plain.sent) == 2 * RECORD


def test_both_ends_arrive(bench: Bench) -> None:
    bench.plain.arrives(b"question", end=True)
    bench.run()
    assert bench.tls.out_ended
    assert not bench.ended()
    bench.tls.arrives(b"answer", end=True)
    bench.run()
    assert bench.plain.out_ended
    assert bench.ended()
    assert bench.splice.ending is Ending.CLEAN


def test_close_notify_behind_full_records_is_not_overlooked(bench: Bench) -> None:
    """It has been read with the bytes before it, in the last burst at that: epoll tells of it no more."""
    bench.tls.arrives(*[bytes(RECORD)] * (BURSTS * COLLECT // RECORD - 1), end=True)
    bench.turn(["tls"])
    assert bench.plain.out_ended


def test_an_end_waits_for_the_bytes_before_it(bench: Bench) -> None:
    bench.plain.room = 0
    bench.tls.arrives(b"answer", end=True)
    bench.tls.room = 0
    bench.plain.arrives(b"question", end=True)
    bench.run()
    assert not bench.plain.out_ended
    assert not bench.tls.out_ended
    bench.plain.room = bench.tls.room = MANY
    bench.run()
    assert bench.ended()
    assert (bytes(bench.tls.sent), bytes(bench.plain.sent)) == (b"question", b"answer")
    assert bench.splice.ending is Ending.CLEAN


@pytest.mark.parametrize("room", [0, MANY])
def test_a_close_notify_that_blocks_is_sent_later(bench: Bench, room: int) -> None:
    bench.tls.room = room
    bench.tls.write_wants_read = 0 if room == 0 else 1
    bench.plain.arrives(end=True)
    bench.run()
    assert not bench.tls.out_ended
    bench.tls.room = MANY
    bench.tls.arrives(b"x")
    bench.run()
    assert bench.tls.out_ended


def test_a_full_last_burst_stops_for_the_others(bench: Bench) -> None:
    """A peer that sends for ever does not keep the loop."""
    bench.tls.arrives(*[bytes(RECORD)] * (BURSTS * COLLECT // RECORD), b"next")
    bench.turn(["tls"])
    assert len(bench.plain.sent) == BURSTS * COLLECT
    bench.run()
    assert bytes(bench.plain.sent[-4:]) == b"next"


def test_a_blocked_plain_leg_among_full_records(bench: Bench) -> None:
    bench.plain.room = 0
    bench.tls.arrives(bytes(RECORD), bytes(10))
    bench.run()
    assert bench.tls_watch.mask == NONE
    assert len(bench.splice.plain_rest) == RECORD + 10


def test_a_blocked_leg_that_is_still_blocked_when_asked_again(bench: Bench) -> None:
    bench.plain.room = 0
    bench.tls.arrives(b"answer")
    bench.run()
    assert bench.pump.on_plain(WRITE) is False
    assert bench.splice.plain_rest == b"answer"


def test_an_event_that_has_passed_does_no_harm(bench: Bench) -> None:
    assert bench.pump.on_plain(READ) is False
    assert bench.pump.on_tls(READ) is False
    assert bench.pump.on_plain(READ | WRITE) is False
    assert bench.pump.on_tls(READ | WRITE) is False
    assert not bench.ended()
