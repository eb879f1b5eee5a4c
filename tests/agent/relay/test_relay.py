"""The relay over real sockets: hand-over, cancelling, hang-ups; and it must not spin."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator
from random import Random

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from agent.relay.idle import PATIENCE
from agent.relay.pump import RECORD
from agent.relay.relay import Relay, RelayClosed
from agent.relay.splice import Ending, Progress, Transfer
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.relayed_pairs import CountingRelay, Wire, Wiring, relaying, wirings
from tests.support.socket_pairs import contexts_of


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    root = Issuer.root()
    return contexts_of(root.leaf(), root)


@pytest.fixture
async def wiring(contexts: Contexts) -> AsyncIterator[Wiring]:
    async with wirings(contexts) as make:
        yield make


async def test_a_task_with_long_work_gives_it_a_turn(
    wiring: Wiring, mock_clock: trio.testing.MockClock
) -> None:
    """Nothing else runs meanwhile: what has waited for a while is passed on within the call."""
    wire = await wiring()
    with Relay() as relay:
        async with relaying(relay, wire):
            await trio.testing.wait_all_tasks_blocked()
            wire.app.send(b"question")
            await relay.serve_relay()  # it has just had one
            with pytest.raises(SSL.WantReadError):
                wire.peer.recv(100)
            mock_clock.jump(PATIENCE)
            await relay.serve_relay()
            assert wire.peer.recv(100) == b"question"
            wire.peer_sock.close()
        mock_clock.jump(PATIENCE)
        await relay.serve_relay()  # without a connection there is nothing to do
    mock_clock.jump(PATIENCE)
    await relay.serve_relay()


@pytest.mark.parametrize("unix", [False, True])
async def test_bytes_and_ends_both_ways(wiring: Wiring, unix: bool) -> None:
    wire = await wiring(unix=unix)
    with Relay() as relay:
        async with relaying(relay, wire) as transfers:
            wire.app.send(b"question")
            assert await wire.from_peer() == b"question"
            wire.peer.send(b"answer")
            assert await wire.from_app() == b"answer"
            wire.app.shutdown(socket.SHUT_WR)
            with pytest.raises(SSL.ZeroReturnError):
                await wire.from_peer()
            wire.peer.send(b"last words")
            assert await wire.from_app() == b"last words"
            wire.peer.shutdown()
            assert await wire.from_app() == b""
        assert transfers == [Transfer(to_plain=16, to_tls=8, ending=Ending.CLEAN)]
        assert relay.connections == 0


async def test_what_was_decrypted_before_is_not_forgotten(wiring: Wiring) -> None:
    """Bytes inside OpenSSL wake no epoll; they are moved when the connection is taken over."""
    wire = await wiring()
    wire.peer.send(b"x" * 100)
    await trio.lowlevel.wait_readable(wire.tls_sock)
    assert wire.tls.recv(10) == b"x" * 10
    assert wire.tls.pending() == 90
    with Relay() as relay:
        async with relaying(relay, wire):
            assert await wire.from_app() == b"x" * 90
            wire.peer_sock.close()


async def test_cancelling_gives_the_sockets_back_untouched(wiring: Wiring) -> None:
    wire = await wiring()
    progress = Progress()
    with Relay() as relay:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run, wire.plain, wire.tls, progress)
                wire.app.send(b"taken")
                assert await wire.from_peer() == b"taken"
                assert relay.connections == 1
                scope.cancel()
        assert scope.cancelled_caught
        assert relay.connections == 0
        assert progress.to_tls == 5
        wire.app.send(b"not taken")
        await trio.lowlevel.wait_readable(wire.plain)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.plain.recv(100) == b"not taken"
        wire.tls.send(b"still TLS")
        assert await wire.from_peer() == b"still TLS"


async def test_a_run_that_is_cancelled_before_it_begins(wiring: Wiring) -> None:
    wire = await wiring()
    with Relay() as relay, trio.CancelScope() as scope:
        scope.cancel()
        await relay.run(wire.plain, wire.tls)
    assert scope.cancelled_caught
    assert relay.connections == 0


async def test_an_end_and_a_cancel_at_once(wiring: Wiring) -> None:
    """Whichever comes first holds; either way the run returns exactly once."""
    rng = Random(7)
    with Relay() as relay:
        for _ in range(60):
            wire = await wiring()
            transfers: list[Transfer] = []
            with trio.CancelScope() as scope:

                async def run(wire: Wire = wire, transfers: list[Transfer] = transfers) -> None:
                    transfers.append(await relay.run(wire.plain, wire.tls))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run)
                    await trio.testing.wait_all_tasks_blocked()
                    wire.peer_sock.close()
                    for _ in range(rng.randrange(3)):
                        await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert transfers or scope.cancelled_caught
            assert relay.connections == 0
            wire.close()


async def test_a_closed_relay_says_so(wiring: Wiring) -> None:
    wire = await wiring()
    relay = Relay()
    with pytest.raises(RelayClosed):
        await relay.run(wire.plain, wire.tls)
    with relay:
        assert repr(relay) == "<Relay connections=0>"
    with pytest.raises(RelayClosed):
        await relay.run(wire.plain, wire.tls)


async def test_runs_end_with_the_relay(wiring: Wiring) -> None:
    wire = await wiring()
    relay = Relay().__enter__()
    failures: list[BaseException] = []

    async def run() -> None:
        try:
            await relay.run(wire.plain, wire.tls)
        except RelayClosed as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        relay.__exit__(None, None, None)
    assert len(failures) == 1


class Buggy:
    """A TLS connection whose reads fail as no TLS connection does."""

    def __init__(self, wire: Wire, after: int) -> None:
        self._wire = wire
        self._after = after

    def fileno(self) -> int:
        return self._wire.tls_sock.fileno()

    def recv(self, size: int) -> bytes:
        self._after -= 1
        if self._after < 0:
            raise RuntimeError("a bug")
        raise SSL.WantReadError


@pytest.mark.parametrize("after", [0, 1])
async def test_a_bug_fails_its_own_run_and_no_other(wiring: Wiring, after: int) -> None:
    bad, good = await wiring(), await wiring()
    with Relay() as relay:
        async with relaying(relay, good):
            bad.peer.send(b"wake up")
            with pytest.raises(RuntimeError, match="a bug"):
                await relay.run(bad.plain, Buggy(bad, after))  # type: ignore[arg-type]
            good.app.send(b"fine")
            assert await good.from_peer() == b"fine"
            good.peer_sock.close()


@pytest.mark.parametrize("size", [0, 100, RECORD, 4 * RECORD, 4 * RECORD + 1])
async def test_a_finished_connection_is_freed_at_once(wiring: Wiring, size: int) -> None:
    """No reference cycle, however it was read last: nothing is left to the garbage collector."""
    wire = await wiring()
    gc.collect()
    gc.disable()
    try:
        with Relay() as relay:
            async with relaying(relay, wire):
                sent = 0
                while sent < size:
                    sent += wire.peer.send(bytes(size - sent))
                wire.peer.shutdown()
                heard = 0
                while data := await wire.from_app():
                    heard += len(data)
                assert heard == size
                wire.app.close()
            tls = weakref.ref(wire.tls)
            wire.tls = wire.peer
            await trio.testing.wait_all_tasks_blocked()
            assert tls() is None
    finally:
        gc.enable()


async def rests(relay: CountingRelay) -> None:
    """The loop does not turn while nothing can be moved."""
    await trio.testing.wait_all_tasks_blocked()
    before = relay.served
    await trio.sleep(0.05)
    await trio.testing.wait_all_tasks_blocked()
    assert relay.served - before <= 2


async def test_a_half_closed_connection_does_not_spin(wiring: Wiring) -> None:
    wire = await wiring()
    with CountingRelay() as relay:
        async with relaying(relay, wire):
            wire.app.shutdown(socket.SHUT_WR)
            with pytest.raises(SSL.ZeroReturnError):
                await wire.from_peer()
            await rests(relay)
            wire.peer.shutdown()
            wire.peer_sock.shutdown(socket.SHUT_WR)
            assert await wire.from_app() == b""


async def filled(wire: Wire) -> int:
    """Send from the app until nothing goes any more: every buffer on the way to the peer is full."""
    total = 0
    while True:
        try:
            total += wire.app.send(bytes(65536))
        except BlockingIOError:
            with trio.move_on_after(0.2) as scope:
                await trio.lowlevel.wait_writable(wire.app)
            if scope.cancelled_caught:
                return total


async def test_a_blocked_connection_does_not_spin(wiring: Wiring) -> None:
    wire = await wiring()
    with CountingRelay() as relay:
        async with relaying(relay, wire):
            await filled(wire)
            await rests(relay)
            wire.peer_sock.close()


@pytest.mark.parametrize("unix", [False, True])
async def test_a_hang_up_behind_a_blocked_leg_does_not_spin_nor_lose_a_byte(
    wiring: Wiring, unix: bool
) -> None:
    """The app has said much, has got its end, and has left; what it said is still on its way."""
    wire = await wiring(unix=unix)
    with CountingRelay() as relay:
        async with relaying(relay, wire) as transfers:
            wire.peer.shutdown()  # no more from the peer
            assert await wire.from_app() == b""
            total = await filled(wire)
            wire.app.close()
            await rests(relay)
            assert len(await wire.all_from_peer()) == total
        assert transfers[0].ending is Ending.CLEAN


async def test_a_reset_behind_a_blocked_leg_is_noticed_at_once(wiring: Wiring) -> None:
    wire = await wiring()
    with CountingRelay() as relay:
        async with relaying(relay, wire) as transfers:
            await filled(wire)
            wire.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.app.close()
        assert transfers[0].ending is Ending.PLAIN_RESET


async def test_a_peer_reset_behind_a_blocked_app_is_noticed_at_once(wiring: Wiring) -> None:
    wire = await wiring()
    with CountingRelay() as relay:
        async with relaying(relay, wire) as transfers:
            with trio.move_on_after(0.3):
                while True:
                    try:
                        wire.peer.send(bytes(16384))
                    except SSL.WantWriteError:
                        await trio.lowlevel.wait_writable(wire.peer_sock)
            await rests(relay)
            wire.peer_sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.peer_sock.close()
        assert transfers[0].ending is Ending.TLS_RESET


async def test_one_broken_connection_does_not_poison_the_errors_of_another(wiring: Wiring) -> None:
    """OpenSSL's error queue belongs to the thread: what one connection leaves there, no other may see."""
    good = await wiring()
    with Relay() as relay:
        async with relaying(relay, good):
            for kind in ("garbage", "reset", "eof"):
                bad = await wiring()
                async with relaying(relay, bad) as transfers:
                    if kind == "garbage":
                        bad.peer_sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
                    elif kind == "reset":
                        bad.peer_sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        bad.peer_sock.close()
                    else:
                        bad.peer_sock.close()
                assert transfers[0].ending is not Ending.CLEAN
                good.app.send(b"fine")
                assert await good.from_peer() == b"fine"
            good.peer_sock.close()
