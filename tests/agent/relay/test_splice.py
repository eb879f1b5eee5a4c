"""The machine alone: what it wants and what is due, state by state."""

from __future__ import annotations

import select

import pytest

from agent.relay.splice import NONE, READ, WRITE, Ending, Progress, Splice, Step, Transfer


def finished(splice: Splice) -> bool:
    return splice.due() is Step.FINISH


def test_the_interests_are_epolls_own_bits() -> None:
    assert (READ, WRITE) == (select.EPOLLIN, select.EPOLLOUT)


def test_at_first_both_legs_are_read_and_nothing_is_due() -> None:
    splice = Splice()
    assert (splice.plain_interest(), splice.tls_interest()) == (READ, READ)
    assert splice.due() is None


def test_a_blocked_plain_leg_stops_reading_from_tls_only() -> None:
    splice = Splice()
    splice.plain_blocked(b"rest")
    assert (splice.plain_interest(), splice.tls_interest()) == (READ | WRITE, NONE)
    splice.plain_flushed()
    assert (splice.plain_interest(), splice.tls_interest()) == (READ, READ)


@pytest.mark.parametrize("wants", [READ, WRITE])
def test_a_blocked_tls_leg_stops_reading_from_plain_and_waits_for_what_openssl_wants(wants: int) -> None:
    splice = Splice()
    splice.tls_blocked(b"rest", wants)
    assert (splice.plain_interest(), splice.tls_interest()) == (NONE, READ | wants)
    splice.tls_flushed()
    assert (splice.plain_interest(), splice.tls_interest()) == (READ, READ)


def test_a_tls_read_that_wants_a_write() -> None:
    splice = Splice()
    splice.tls_read_wants = WRITE
    assert splice.tls_interest() == WRITE


def test_the_end_of_the_plain_leg_is_passed_on_after_the_rest() -> None:
    splice = Splice()
    splice.tls_blocked(b"rest", WRITE)
    splice.plain_gave_end()
    assert splice.due() is None
    splice.tls_flushed()
    assert splice.due() is Step.SHUT_TLS
    splice.tls_was_shut()
    assert splice.due() is None
    assert (splice.plain_interest(), splice.tls_interest()) == (NONE, READ)


def test_the_end_of_the_tls_leg_is_passed_on_after_the_rest() -> None:
    splice = Splice()
    splice.plain_blocked(b"rest")
    splice.tls_gave_end()
    assert splice.due() is None
    splice.plain_flushed()
    assert splice.due() is Step.SHUT_PLAIN
    splice.plain_was_shut()
    assert splice.due() is None
    assert (splice.plain_interest(), splice.tls_interest()) == (READ, NONE)


@pytest.mark.parametrize("tls_first", [True, False])
def test_both_ends_make_a_clean_ending(tls_first: bool) -> None:
    splice = Splice()
    for is_tls in (tls_first, not tls_first):
        if is_tls:
            splice.tls_gave_end()
            splice.plain_was_shut()
        else:
            splice.plain_gave_end()
            splice.tls_was_shut()
    assert finished(splice)
    transfer = splice.transfer(Progress())
    assert (transfer.ending, transfer.tls_broke_first) == (Ending.CLEAN, False)
    assert (transfer.answered, transfer.refused) == (True, False)


def test_a_close_notify_that_blocks_is_awaited() -> None:
    splice = Splice()
    splice.plain_gave_end()
    splice.tls_blocked(b"", WRITE)
    assert splice.due() is None
    assert splice.tls_interest() == READ | WRITE
    splice.tls_flushed()
    assert splice.due() is Step.SHUT_TLS


@pytest.mark.parametrize("ending", [e for e in Ending if e is not Ending.CLEAN])
def test_a_failure_is_over_at_once_and_the_first_is_the_reason(ending: Ending) -> None:
    splice = Splice()
    splice.plain_blocked(b"rest")
    splice.fail(ending, "why")
    splice.fail(Ending.TLS_FAILED, "later")
    assert finished(splice)
    transfer = splice.transfer(Progress())
    assert (transfer.ending, transfer.detail) == (ending, "why")
    assert transfer.tls_broke_first is (ending not in {Ending.PLAIN_RESET, Ending.NO_RESOURCES})


@pytest.mark.parametrize("ending", [e for e in Ending if e is not Ending.CLEAN])
@pytest.mark.parametrize("ended", ["plain", "tls"])
def test_a_failure_after_an_orderly_end_is_no_refusal_and_leads_no_further(
    ended: str, ending: Ending
) -> None:
    """Whichever side ended, the other has been told: no other connection may begin anew."""
    splice = Splice()
    if ended == "plain":
        splice.plain_gave_end()
        splice.tls_was_shut()
    else:
        splice.tls_gave_end()
        splice.plain_was_shut()
    splice.fail(ending, "")
    transfer = splice.transfer(Progress())
    assert (transfer.ending, transfer.refused, transfer.untouched) == (ending, False, False)
    assert not transfer.answered


def test_an_end_that_could_not_be_passed_on_is_an_end_all_the_same() -> None:
    """The far side ends in order, and our app has been reset: its leg does not take the end."""
    splice = Splice()
    splice.tls_gave_end()
    splice.shut_failed(Ending.PLAIN_RESET, "ENOTCONN")
    assert not splice.transfer(Progress()).refused


def test_a_leg_that_has_left_in_order_need_not_take_the_other_ones_end() -> None:
    splice = Splice()
    splice.tls_gave_end()
    splice.plain_was_shut()
    splice.plain_gave_end()
    splice.shut_failed(Ending.TLS_RESET, "EPIPE")
    assert finished(splice)
    assert splice.ending is Ending.CLEAN
    splice = Splice()
    splice.plain_gave_end()
    splice.tls_was_shut()
    splice.tls_gave_end()
    splice.shut_failed(Ending.PLAIN_RESET, "ENOTCONN")
    assert finished(splice)
    assert splice.ending is Ending.CLEAN


@pytest.mark.parametrize("ending", [Ending.PLAIN_RESET, Ending.TLS_RESET])
def test_a_leg_that_had_not_ended_must_take_the_other_ones_end(ending: Ending) -> None:
    splice = Splice()
    if ending is Ending.PLAIN_RESET:
        splice.tls_gave_end()
    else:
        splice.plain_gave_end()
    splice.shut_failed(ending, "gone")
    assert finished(splice)
    assert splice.ending is ending


def test_untouched_means_that_no_byte_was_taken() -> None:
    splice, progress = Splice(), Progress()
    splice.fail(Ending.TLS_RESET, "")
    assert splice.transfer(progress).untouched
    progress.to_tls = 1
    assert not splice.transfer(progress).untouched
    progress.to_tls = 0
    splice.lost = True
    assert not splice.transfer(progress).untouched


@pytest.mark.parametrize("towards", ["plain", "tls"])
def test_what_still_waits_was_taken(towards: str) -> None:
    """A blocked write may have gone in part: no other endpoint may serve the connection from its start."""
    splice = Splice()
    if towards == "plain":
        splice.plain_blocked(b"rest")
    else:
        splice.tls_blocked(b"rest", WRITE)
    splice.fail(Ending.TLS_RESET, "")
    assert not splice.transfer(Progress()).untouched


def test_there_is_no_transfer_before_the_end() -> None:
    with pytest.raises(RuntimeError):
        Splice().transfer(Progress())


def test_progress_shows_itself() -> None:
    assert repr(Progress()) == "<Progress to_plain=0 to_tls=0>"


@pytest.mark.parametrize("heard", [0, 1])
@pytest.mark.parametrize("broke_first", [True, False])
def test_what_counts_as_a_refusal(heard: int, broke_first: bool) -> None:
    """The TLS side broke off before any end, and before it had said a byte."""
    transfer = Transfer(to_plain=heard, to_tls=10, ending=Ending.TLS_RESET, tls_broke_first=broke_first)
    assert transfer.refused is (heard == 0 and broke_first)
    assert transfer.answered is (heard == 1)
