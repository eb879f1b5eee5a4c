"""Five hundred connections at once: each gets its own bytes, and a full sidecar says so at once."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator

import pytest
import trio

from agent.connections.records import Direction
from agent.relay.splice import Ending
from tests.support.descriptors import no_descriptor_leaked
from tests.support.two_sidecars import echo, mesh, receive_all, until

MANY = 500
PER_CONNECTION = 6  # descriptors in this one process: client, two in each sidecar, app


@pytest.fixture
def enough_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY * PER_CONNECTION + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("enough_files")
async def test_500_connections_at_once() -> None:
    all_in = trio.Event()
    waiting = 0
    async with no_descriptor_leaked(), mesh(echo, handshake_timeout=30) as m:

        async def exchange(number: int) -> None:
            nonlocal waiting
            client = await m.connect()
            async with client:
                payload = number.to_bytes(4, "big") * 4096
                await client.send_all(payload[:4])
                assert await client.receive_some(4) == payload[:4]
                waiting += 1
                if waiting == MANY:
                    all_in.set()
                await all_in.wait()
                assert len(m.db.ledger.live()) == MANY
                await client.send_all(payload)
                await client.send_eof()
                assert await receive_all(client) == payload

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(exchange, number)
        await m.quiet()
        for side, direction in ((m.web, Direction.OUTBOUND), (m.db, Direction.INBOUND)):
            assert side.ledger.counters() == {(direction, Ending.CLEAN.value): MANY}
            assert side.ledger.bytes(direction) == (MANY * (4 + 16384),) * 2
            assert side.admission.most == MANY
        assert m.app.accepts == MANY


async def test_one_too_many_is_turned_away_at_once() -> None:
    async with no_descriptor_leaked(), mesh(echo, limit=2) as m:
        clients = [await m.connect() for _ in range(2)]
        await until(lambda: m.db.admission.live == 2)
        for turn in (1, 2, 3):
            late = await m.connect()
            async with late:
                assert await late.receive_some() == b""
            assert m.web.admission.overflow == turn
        assert m.web.events.overflows == 1  # told once, not per caller
        await clients[0].aclose()
        await until(lambda: m.web.admission.live == 1)
        again = await m.connect()
        async with again:
            await again.send_all(b"room")
            assert await again.receive_some() == b"room"
        await clients[1].aclose()


async def test_out_of_descriptors_is_a_pause_and_not_an_end() -> None:
    """Accepting stops while there are none, is told once, and goes on by itself."""
    async with mesh(echo) as m:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = await m.connect()
        await until(lambda: m.db.ledger.live() != () and m.db.ledger.live()[0].opened)
        second = m.raw()
        with second:
            await until(lambda: m.db.admission.live == 2)
            third = trio.socket.socket()
            taken = third.fileno() + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
            try:
                await third.connect((m.public.host, m.public.port))
                await until(lambda: m.db.events.shortages != [])
                await trio.sleep(0.25)  # more than two pauses
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert [error.errno for error in m.db.events.shortages] == [errno.EMFILE]
            await until(lambda: m.db.admission.live == 3)
            third.close()
        async with client:
            await client.send_all(b"still here")
            assert await client.receive_some() == b"still here"
