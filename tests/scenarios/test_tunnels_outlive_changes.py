"""What changes beneath tunnels: twenty rotations, and one source of five that is revoked."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from agent.base.latest import Latest
from agent.connections.records import CloseReason, Direction
from agent.outbound.tunnels import ClientTunnel
from agent.relay.splice import Ending, Progress, Transfer
from tests.scenarios.test_tunnels import called, tunnelling
from tests.support.policies import policy_of
from tests.support.socket_pairs import contexts_of, tcp_pair
from tests.support.tunnels import client_tunnels, receive, send
from tests.support.two_sidecars import Mesh, endpoint, until

ROTATIONS = 20
SOURCES = ("api", "batch", "cron", "shop", "web")


async def test_twenty_rotations_lose_no_stream_neither_long_nor_new() -> None:
    async with tunnelling() as m, trio.open_nursery() as nursery:
        long = [await called(m) for _ in range(10)]
        new = 0

        async def keep_calling() -> None:
            nonlocal new
            while True:
                stream = await m.connect()
                async with stream:
                    await stream.send_all(b"new")
                    assert await stream.receive_some(10) == b"new"
                new += 1

        for _ in range(4):
            nursery.start_soon(keep_calling)
        for generation in range(2, ROTATIONS + 2):
            enough = new + 20
            for side, service, where in ((m.web, "web", "dc1"), (m.db, "db", "dc2")):
                leaf = m.root.leaf(service=service, datacenter=where)
                side.contexts.publish(contexts_of(leaf, m.root, generation=generation))
                await trio.sleep(0.002)
            await until(lambda enough=enough: new > enough)  # type: ignore[misc]  # mypy sees no type in a default
        for stream in long:
            await stream.send_all(b"still")
            assert await stream.receive_some(10) == b"still"
        for side in (m.web, m.db):
            assert {reason for _, reason in side.ledger.counters()} == {"clean"}
            assert len(side.ledger.tunnels()) < 5  # the first one, for the long streams, and the newest
        nursery.cancel_scope.cancel()


class Caller:
    """A source of its own, with a stream in a tunnel of its own."""

    def __init__(self, m: Mesh, service: str) -> None:
        contexts = contexts_of(m.root.leaf(service=service, datacenter="dc1"), m.root)
        self.tunnels = client_tunnels(Latest(contexts), m.deny_list, m.relay, m.web.ledger)
        self.service = service
        self.socks: list[socket.socket] = []
        self.transfers: list[Transfer] = []

    async def call(self, m: Mesh, nursery: trio.Nursery) -> socket.socket:
        endpoints = m.endpoints.value
        assert endpoints is not None
        dialling = m.targets.dialling(endpoints.endpoints[0])
        expected = endpoint(1).expected
        tunnel = await self.tunnels.get(expected, dialling, dial_seconds=5, shake_seconds=5)
        assert tunnel is not None
        app, plain = tcp_pair()
        self.socks += (app, plain)
        nursery.start_soon(self._carry, tunnel, plain)
        await send(app, self.service.encode())
        assert await receive(app, len(self.service)) == self.service.encode()
        return app

    async def _carry(self, tunnel: ClientTunnel, plain: socket.socket) -> None:
        self.transfers.append(await tunnel.run(plain, Progress()))


@asynccontextmanager
async def callers(m: Mesh) -> AsyncIterator[list[Caller]]:
    found = [Caller(m, service) for service in SOURCES]
    async with trio.open_nursery() as nursery:
        for caller in found:
            nursery.start_soon(caller.tunnels.run)
        await trio.testing.wait_all_tasks_blocked(0.01)
        for caller in found:
            for _ in range(4):
                await caller.call(m, nursery)
        yield found
        nursery.cancel_scope.cancel()
    for caller in found:
        for sock in caller.socks:
            sock.close()


async def test_a_source_that_is_revoked_loses_its_streams_and_no_other_does() -> None:
    async with tunnelling() as m, callers(m) as found:
        assert len(m.db.ledger.live()) == 20
        rule = {"SourceName": "cron", "DestinationName": "db", "Action": "deny"}
        m.policy.publish(policy_of([rule], "db", default_allow=True))
        (cron,) = [caller for caller in found if caller.service == "cron"]
        with trio.fail_after(5):
            await until(lambda: len(cron.transfers) == 4)
        assert {transfer.ending for transfer in cron.transfers} == {Ending.TLS_RESET}
        assert m.db.ledger.counters() == {(Direction.INBOUND, CloseReason.INTENTION_WITHDRAWN.value): 4}
        assert [len(caller.transfers) for caller in found if caller is not cron] == [0] * 4
        assert len(m.db.ledger.tunnels()) == 5
        for caller in found:
            if caller is not cron:
                await send(caller.socks[0], b"still")
                assert await receive(caller.socks[0], 5) == b"still"
