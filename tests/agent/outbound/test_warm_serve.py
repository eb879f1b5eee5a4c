"""A warm connection in use: which endings are the connection's, and which lead on. No TLS here."""

from __future__ import annotations

import socket
from collections import deque
from datetime import UTC, datetime

import pytest
import trio

from agent.connections.ledger import Ledger
from agent.connections.records import Direction
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import WarmConnection
from agent.outbound.warm_serve import WarmUse, serve_warm
from agent.relay.relay import Relay
from agent.relay.splice import Ending
from tests.agent.outbound.test_warm_connection import Heard, warm
from tests.scenarios.recorder import Recorder
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import until
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.support.warm_upstream import DB


class Bench:
    """Our app's socket, and a pool that hands out what it is given."""

    def __init__(self) -> None:
        self.ready: deque[WarmConnection] = deque()
        self.app, self.sock = tcp_pair()
        self.targets = UpstreamState(DB, surroundings(Lookups(), Told()))
        self.targets.warm = self
        self.events = Recorder()
        self.ledger = Ledger(lambda: datetime.now(UTC), self.events)
        self.far: list[socket.socket] = []

    def take(self) -> WarmConnection | None:
        return self.ready.popleft() if self.ready else None

    def keep(self, early: bytes = b"") -> socket.socket:
        """One more; its far side."""
        near, far = tcp_pair()
        one = warm(Plain(near), near)
        one.early += early
        self.ready.append(one)
        self.far.append(far)
        return far

    async def serve(self, relay: Relay) -> bool:
        with self.ledger.open(Direction.OUTBOUND, "app", "db") as connection:
            return await serve_warm(
                self.sock,
                connection,
                [],
                targets=self.targets,
                relay=relay,
                ledger=self.ledger,
                on_served=lambda: None,
            )
        raise AssertionError

    def close(self) -> None:
        for sock in (self.app, self.sock, *self.far):
            sock.close()


class Plain(Heard):
    """TLS without the TLS, as the relay uses it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        from OpenSSL import SSL

        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            raise SSL.WantReadError from None
        except OSError as error:
            raise SSL.SysCallError(error.errno, "") from error
        if not data:
            raise SSL.ZeroReturnError
        return data

    def send(self, data: memoryview) -> int:
        return self._sock.send(data)

    def shutdown(self) -> bool:
        self._sock.shutdown(socket.SHUT_WR)
        return True


async def test_nobody_ready_leads_on() -> None:
    bench = Bench()
    with Relay() as relay:
        assert not await bench.serve(relay)
    bench.close()


async def test_served_to_its_end() -> None:
    bench = Bench()
    far = bench.keep(b"220 ")
    bench.app.send(b"hello")
    bench.app.shutdown(socket.SHUT_WR)
    far.send(b"ready")
    far.shutdown(socket.SHUT_WR)
    with Relay() as relay:
        assert await bench.serve(relay)
    assert far.recv(100) == b"hello"
    assert bench.app.recv(100) == b"220 ready"
    (ended,) = bench.events.closed_ones
    assert (ended.reason, ended.to_plain, ended.to_tls) == (Ending.CLEAN, 9, 5)
    assert ended.dialled == "10.0.0.1:1 (local_service_address, warm)"
    assert bench.targets.loads == {}
    bench.close()


async def test_stale_ones_lead_on_until_one_serves() -> None:
    bench = Bench()
    for _ in range(2):
        bench.keep().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        bench.far[-1].close()
    far = bench.keep()
    far.send(b"x")
    far.shutdown(socket.SHUT_WR)
    bench.app.shutdown(socket.SHUT_WR)
    with Relay() as relay:
        assert await bench.serve(relay)
    assert bench.app.recv(10) == b"x"
    assert [one.reason for one in bench.events.attempts] == [WarmUse.BROKEN] * 2
    assert bench.targets.failures.ejected() == {}
    bench.close()


async def test_no_second_one_is_spent_on_an_app_that_has_left() -> None:
    """The first breaks in the moment our app is reset."""
    bench = Bench()
    for sock in (bench.keep(), bench.app):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        sock.close()
    bench.keep()
    with Relay() as relay:
        assert not await bench.serve(relay)
    assert len(bench.ready) == 1
    bench.ready.popleft().sock.close()
    bench.close()


async def test_one_that_breaks_with_bytes_of_our_app_is_the_end() -> None:
    bench = Bench()
    far = bench.keep()
    bench.keep()
    bench.app.send(b"hello")
    with Relay() as relay:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.serve, relay)
            await until(lambda: bool(bench.ledger.bytes(Direction.OUTBOUND)[1]))
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            far.close()
    (ended,) = bench.events.closed_ones
    assert ended.reason is WarmUse.BROKEN
    assert bench.targets.failures.ejected() == {}
    assert len(bench.ready) == 1
    with pytest.raises(ConnectionResetError):
        bench.app.recv(1)
    bench.ready.popleft().sock.close()
    bench.close()


async def test_an_app_that_has_left_takes_no_greeting() -> None:
    bench = Bench()
    bench.keep(b"220 ready")
    bench.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    bench.app.close()
    with Relay() as relay:
        assert await bench.serve(relay)
    assert bench.events.closed_ones[0].reason is Ending.PLAIN_RESET
    bench.close()
