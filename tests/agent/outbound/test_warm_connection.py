"""One warm connection: what it receives while it is unused, and how it is closed."""

from __future__ import annotations

import socket
from typing import cast

import pytest
from OpenSSL import SSL
from trio.testing import MockClock

from agent.connections.records import Party
from agent.outbound.warm_connection import (
    MOST_EARLY,
    ORDERLY,
    ORDINARY,
    PROVEN_SECONDS,
    WarmConnection,
    WarmReason,
)
from tests.support.socket_pairs import tcp_pair
from tests.support.warm_upstream import ONE
from upstreams.reach import DialAddress, ReachReason
from upstreams.route import Candidate


class Heard:
    """A TLS connection that says these things, then nothing."""

    def __init__(self, *said: bytes | SSL.Error) -> None:
        self._said = list(said)
        self.shut = 0

    def recv(self, _size: int) -> bytes:
        if not self._said:
            raise SSL.WantReadError
        one = self._said.pop(0)
        if isinstance(one, SSL.Error):
            raise one
        return one

    def shutdown(self) -> bool:
        self.shut += 1
        raise SSL.SysCallError(32, "EPIPE")


def warm(tls: Heard, sock: socket.socket, since: float = 0.0) -> WarmConnection:
    return WarmConnection(
        sock=sock,
        tls=cast("SSL.Connection", tls),
        candidate=Candidate(target=0, endpoint=ONE, hop=ONE),
        dialling=DialAddress(host="10.0.0.1", port=1, reason=ReachReason.LOCAL_SERVICE),
        peer=None,  # type: ignore[arg-type]  # nobody asks
        ours=cast("Party", None),
        generation=1,
        since=since,
    )


ALERT = SSL.Error([("SSL routines", "", "tlsv1 alert access denied")])
EOF = SSL.SysCallError(-1, "Unexpected EOF")


@pytest.mark.parametrize(
    ("said", "age", "reason", "detail"),
    [
        ([], 1.0, None, ""),
        ([SSL.WantWriteError()], 1.0, None, ""),
        ([b"hello", b"again"], 1.0, None, ""),
        ([SSL.ZeroReturnError()], 1.0, WarmReason.CLOSED, "after 1.0 s"),
        ([b"bye", SSL.ZeroReturnError()], 1.0, WarmReason.CLOSED, "after 1.0 s"),
        ([ALERT], 1.0, WarmReason.REFUSED, "tls_failed after 1.0 s: tlsv1 alert access denied"),
        ([EOF], 1.0, WarmReason.REFUSED, "tls_truncated after 1.0 s"),
        ([b"220 db", EOF], 1.0, WarmReason.LOST, "tls_truncated after 1.0 s"),
        ([EOF], PROVEN_SECONDS, WarmReason.LOST, "tls_truncated after 5.0 s"),
        ([SSL.SysCallError(104, "ECONNRESET")], 9.0, WarmReason.LOST, "tls_reset after 9.0 s"),
        ([bytes(MOST_EARLY + 1)], 1.0, WarmReason.TALKATIVE, f"more than {MOST_EARLY} bytes unasked"),
    ],
)
async def test_what_is_heard(
    autojump_clock: MockClock,
    said: list[bytes | SSL.Error],
    age: float,
    reason: WarmReason | None,
    detail: str,
) -> None:
    near, far = tcp_pair()
    with near, far:
        one = warm(Heard(*said), near, since=-age)
        heard = one.listen()
        assert (heard and heard[0]) == reason
        assert heard is None or heard[1].startswith(detail)
        assert bytes(one.early) == b"".join(part for part in said if isinstance(part, bytes))


@pytest.mark.parametrize("in_order", [True, False])
async def test_an_end_in_order_says_so_and_any_other_is_a_reset(in_order: bool) -> None:
    near, far = tcp_pair()
    tls = Heard()
    with far:
        warm(tls, near).close(in_order=in_order)
        assert near.fileno() == -1
        assert tls.shut == in_order
        if in_order:
            assert far.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                far.recv(1)


def test_what_is_against_a_peer_is_never_ordinary() -> None:
    assert {WarmReason.REFUSED, WarmReason.LOST}.isdisjoint(ORDERLY | ORDINARY)
    assert ORDINARY < ORDERLY
