"""The pump between scripted legs: every way of breaking, and of hanging up, without a kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from OpenSSL import SSL

from agent.relay.pump import RECORD
from agent.relay.splice import NONE, Ending
from tests.support.scripted_answers import MANY, Bench


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.run()
    return bench


@pytest.mark.parametrize(
    ("failure", "ending"),
    [
        (SSL.SysCallError(-1, "Unexpected EOF"), Ending.TLS_TRUNCATED),
        (SSL.SysCallError(errno.ENOMEM, "ENOMEM"), Ending.NO_RESOURCES),
        (SSL.Error([("SSL routines", "", "malloc failure")]), Ending.NO_RESOURCES),
        (SSL.SysCallError(errno.ECONNRESET, "ECONNRESET"), Ending.TLS_RESET),
        (SSL.Error([("SSL routines", "", "tlsv13 alert certificate required")]), Ending.TLS_FAILED),
        (SSL.Error(), Ending.TLS_FAILED),
    ],
)
@pytest.mark.parametrize("before", [b"", b"half", bytes(RECORD)])
def test_a_tls_leg_that_breaks(bench: Bench, failure: SSL.Error, ending: Ending, before: bytes) -> None:
    bench.tls.failure = failure
    bench.tls.arrives(before, end=True)
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is ending
    assert bench.splice.detail
    assert bytes(bench.plain.sent) == before  # what came before it still arrives
    assert not bench.plain.out_ended  # but never an orderly end


def test_a_plain_leg_that_breaks(bench: Bench) -> None:
    bench.plain.arrives(b"half")
    bench.plain.breaks()
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is Ending.PLAIN_RESET
    assert bytes(bench.tls.sent) == b"half"
    assert not bench.tls.out_ended


@pytest.mark.parametrize("records", [[b"answer"], [bytes(RECORD), b"answer"]])
def test_a_plain_leg_found_broken_when_it_is_written_to(bench: Bench, records: list[bytes]) -> None:
    """What it said before it broke is still passed on."""
    bench.plain.arrives(b"413 too large")
    bench.plain.breaks()
    bench.tls.arrives(*records)
    bench.turn(["tls"])
    assert bench.ended()
    assert bench.splice.ending is Ending.PLAIN_RESET
    assert bytes(bench.tls.sent) == b"413 too large"
    assert bench.splice.lost


def test_a_plain_leg_that_breaks_while_it_is_blocked(bench: Bench) -> None:
    bench.plain.room = 0
    bench.tls.arrives(b"answer")
    bench.run()
    bench.plain.breaks()
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is Ending.PLAIN_RESET


def test_a_tls_leg_found_broken_when_it_is_written_to(bench: Bench) -> None:
    """Its last words, an alert, say more than the failed write."""
    bench.tls.failure = SSL.Error([("SSL routines", "", "tlsv1 alert access denied")])
    bench.tls.arrives(end=True)
    bench.tls.broken = True
    bench.tls.recv = _raise(bench.tls.failure)  # type: ignore[method-assign]
    bench.plain.arrives(b"question")
    bench.turn(["plain"])
    assert bench.ended()
    assert (bench.splice.ending, bench.splice.detail) == (Ending.TLS_FAILED, "tlsv1 alert access denied")
    assert bench.splice.lost


def _raise(error: SSL.Error) -> Callable[[int], bytes]:
    def recv(size: int, /) -> bytes:
        raise error

    return recv


def test_both_legs_found_broken_at_once(bench: Bench) -> None:
    bench.plain.arrives(b"question")
    bench.plain.breaks()
    bench.tls.arrives(b"answer")
    bench.tls.breaks()
    bench.turn(["tls"])
    assert bench.ended()
    assert bench.splice.ending in {Ending.PLAIN_RESET, Ending.TLS_RESET}


def test_a_break_of_the_plain_leg_while_nothing_is_read_from_it(bench: Bench) -> None:
    """EPOLLERR comes whatever is watched for; it must end the connection, not spin."""
    bench.tls.room = 0
    bench.plain.arrives(b"question")
    bench.run()
    assert bench.plain_watch.mask == NONE
    bench.plain.breaks()
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is Ending.PLAIN_RESET


def test_a_break_of_the_tls_leg_while_nothing_is_read_from_it(bench: Bench) -> None:
    bench.plain.room = 0
    bench.tls.arrives(b"answer")
    bench.run()
    assert bench.tls_watch.mask == NONE
    bench.tls.breaks()
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is Ending.TLS_RESET


def test_a_break_of_the_tls_leg_while_it_is_blocked(bench: Bench) -> None:
    bench.tls.room = 0
    bench.plain.room = 0
    bench.plain.arrives(b"question")
    bench.tls.arrives(b"answer")
    bench.run()
    bench.tls.breaks()
    bench.run()
    assert bench.ended()
    assert bench.splice.ending is Ending.TLS_RESET


def test_a_hang_up_of_the_plain_leg_with_bytes_left_is_parked_until_they_are_wanted(bench: Bench) -> None:
    """Both of its ends are shut, so EPOLLHUP stands; but what it said last is not read yet."""
    bench.tls.room = 0
    bench.tls.arrives(end=True)
    bench.run()
    assert bench.plain.out_ended
    bench.plain.arrives(b"goodbye", b"forever", end=True)
    bench.run()
    assert bench.plain_watch.parked == 1
    bench.tls.room = MANY
    bench.run()
    assert bench.ended()
    assert bytes(bench.tls.sent) == b"goodbyeforever"
    assert bench.splice.ending is Ending.CLEAN


def test_a_hang_up_of_the_tls_leg_with_bytes_left_is_parked_until_they_are_wanted(bench: Bench) -> None:
    bench.plain.room = 0
    bench.plain.arrives(end=True)
    bench.run()
    bench.tls.arrives(b"goodbye", b"forever", end=True)
    bench.run()
    assert bench.tls_watch.parked == 1
    bench.plain.room = MANY
    bench.run()
    assert bench.ended()
    assert bytes(bench.plain.sent) == b"goodbyeforever"


def test_a_peer_that_left_after_its_end_costs_nothing(bench: Bench) -> None:
    """close_notify was received and nothing is owed: that our own cannot be sent any more is no failure."""
    bench.tls.arrives(b"all", end=True)
    bench.run()
    bench.tls.broken = True
    bench.plain.arrives(end=True)
    bench.turn(["plain"])
    assert bench.ended()
    assert bench.splice.ending is Ending.CLEAN


def test_an_app_that_left_after_its_end_costs_nothing(bench: Bench) -> None:
    bench.plain.arrives(b"all", end=True)
    bench.run()
    bench.plain.broken = True
    bench.tls.arrives(end=True)
    bench.turn(["tls"])
    assert bench.ended()
    assert bench.splice.ending is Ending.CLEAN
