"""A leg is ended so that its other end learns the truth, and one that has left is known."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from agent.relay.close import close_both, close_without_notify, has_left, reset
from agent.relay.splice import Ending
from tests.support.socket_pairs import tcp_pair


def ended_as(sock: socket.socket) -> str:
    sock.settimeout(2)
    try:
        return "bytes" if sock.recv(100) else "end"
    except ConnectionResetError:
        return "reset"


def test_a_reset_is_seen_as_one_and_can_be_repeated() -> None:
    near, far = tcp_pair()
    reset(near)
    reset(near)
    assert ended_as(far) == "reset"
    far.close()


def test_a_dismissed_caller_still_gets_what_was_written_last() -> None:
    near, far = tcp_pair()
    far.send(b"unread")
    near.send(b"alert")
    close_without_notify(near)
    assert ended_as(far) == "bytes"
    assert ended_as(far) == "end"
    assert far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "no reset, which could overtake the alert"
    far.close()


def test_a_caller_who_has_left_can_be_dismissed() -> None:
    near, far = tcp_pair()
    reset(far)
    close_without_notify(near)
    assert near.fileno() == -1


@pytest.mark.parametrize(
    ("ending", "plain_sees", "tls_sees"),
    [
        (Ending.CLEAN, "end", "end"),
        (Ending.PLAIN_RESET, "reset", "end"),  # TCP's end, without a close_notify before it
        (Ending.TLS_TRUNCATED, "reset", "reset"),
        (Ending.TLS_RESET, "reset", "reset"),
        (None, "reset", "reset"),
    ],
)
def test_how_the_legs_part(ending: Ending | None, plain_sees: str, tls_sees: str) -> None:
    plain, app = tcp_pair()
    tls, peer = tcp_pair()
    close_both(plain, tls, ending)
    assert (ended_as(app), ended_as(peer)) == (plain_sees, tls_sees)
    app.close()
    peer.close()


@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair])
def test_who_has_left_takes_nothing_more(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    near, far = pair()
    near.setblocking(False)
    with near:
        assert not has_left(near)
        near.send(b"full" * 2_000_000)
        assert not has_left(near)
        far.shutdown(socket.SHUT_WR)
        assert not has_left(near), "it has no more to say, and may still listen"
        reset(far)
        assert has_left(near)


def test_there_may_be_no_leg_to_part() -> None:
    close_both(None, None, None)
