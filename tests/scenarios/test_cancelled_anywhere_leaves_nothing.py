"""A connection cancelled at any await leaves no live entry, no descriptor, and no half-open peer."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
from OpenSSL import SSL

from agent.connections.records import CloseReason
from tests.support.descriptors import no_descriptor_leaked
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import Mesh, Side, echo, inbound, mesh, outbound, until

Serve = Callable[[], Awaitable[None]]
NEVER = 10**6  # more steps than there are


class CancelAtStep(trio.abc.Instrument):
    """Cancels when a task is about to run for the nth time: its next await is hit, whichever it is."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.step = step
        self.task: trio.lowlevel.Task | None = None
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel()


async def cancelled_at(step: int, serve: Serve) -> bool:
    """Run it, cancelled at that step, 0 is its first await; whether it came to be cancelled."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        instrument = CancelAtStep(scope, step)
        instrument.task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(instrument)
        try:
            await serve()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def try_every_step(side: Side, once: Callable[[int], Awaitable[bool]]) -> set[str]:
    """Cancel at the first await, then at the second, and so on, until it ends before it is cancelled.

    Answers what was known of the connection when it was cancelled.
    """
    known: set[str] = set()
    for step in itertools.count():
        async with no_descriptor_leaked():
            caught = await once(step)
            assert side.ledger.live() == ()
        if not caught:
            return known
        ended = side.ledger.recent()[-1]
        assert ended.reason is CloseReason.SHUTDOWN
        known.add("address" if ended.dialled else "peer" if ended.peer else "nothing")
    raise AssertionError


async def converse(sock: socket.socket, context: SSL.Context) -> None:
    """A caller's whole conversation; it may be cut off anywhere."""
    tls = SSL.Connection(context, sock)
    tls.set_connect_state()
    said = ended = False
    with sock:
        while True:
            try:
                if not said:
                    said = bool(tls.send(b"hello"))
                assert tls.recv(100) == b"hello"
                ended = ended or tls.shutdown() is not None
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(sock)
            except SSL.Error:
                return


async def test_inbound_at_every_await() -> None:
    async with mesh(echo) as m:
        assert m.web.contexts.value is not None
        context = m.web.contexts.value.client

        async def once(step: int) -> bool:
            near, far = tcp_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(converse, near, context)
                caught = await cancelled_at(step, lambda: inbound(m, far))
            await until(lambda: m.relay.connections == 0)
            return caught

        # Never between the peer and the address: an app on this machine is dialled without a wait.
        assert await try_every_step(m.db, once) == {"nothing", "address"}


@pytest.mark.parametrize("tunnel", [False, True])
async def test_outbound_at_every_await(*, tunnel: bool) -> None:
    async with mesh(echo, tunnel=tunnel) as m:

        async def talk(sock: socket.socket) -> None:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            async with stream:
                try:
                    await stream.send_all(b"hello")
                    await stream.receive_some()
                except trio.BrokenResourceError:
                    return

        async def once(step: int) -> bool:
            near, far = tcp_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, near)
                caught = await cancelled_at(step, lambda: outbound(m, far))
            await m.db.ledger.empty()
            await until(lambda: m.relay.connections == 0)
            return caught

        if tunnel:
            await once(NEVER)  # makes the tunnel, which stays when its streams end
        # A stream of a tunnel that is there is chosen and begun without a wait.
        assert await try_every_step(m.web, once) == ({"address"} if tunnel else {"nothing", "address"})
        assert m.loads == {}
        assert len(m.web.ledger.tunnels()) == tunnel


@pytest.mark.parametrize("reason", [CloseReason.DRAIN_DEADLINE, CloseReason.INTENTION_WITHDRAWN])
async def test_closed_in_mid_relay_both_ends_see_a_break(reason: CloseReason) -> None:
    broken = trio.Event()

    async def app(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        broken.set()

    async with no_descriptor_leaked(), mesh(app) as m:
        client = await m.connect()
        async with client:
            assert await client.receive_some() == b"hello"
            assert m.db.ledger.close_all(reason) == 1
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        await broken.wait()
        await m.quiet()
        ended = m.db.ledger.recent()[-1]
        assert (ended.reason, ended.opened) == (reason, True)
        assert m.db.events.closed_ones == [ended]


@pytest.mark.parametrize("tunnel", [False, True])
async def test_a_thousand_cancels_while_bytes_fly(*, tunnel: bool) -> None:
    """The two-step cancel, against the relay in the middle of its work."""

    async def pour(m: Mesh) -> None:
        stream = await m.connect()
        async with stream:
            try:
                while True:
                    await stream.send_all(bytes(65536))
            except trio.BrokenResourceError:
                return

    async def sink(stream: trio.SocketStream) -> None:
        try:
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            return

    async with no_descriptor_leaked(), mesh(sink, tunnel=tunnel) as m:
        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(pour, m)
                await until(lambda: len(m.db.ledger.live()) == 5 and (tunnel or m.relay.connections >= 5))
                m.web.ledger.close_all(CloseReason.SHUTDOWN)
                m.db.ledger.close_all(CloseReason.SHUTDOWN)
            await m.quiet()
        assert m.relay.connections == 0
