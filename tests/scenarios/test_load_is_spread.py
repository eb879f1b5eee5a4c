"""Connections over five endpoints: shares by weight, less for a slow one, none for an ejected one.

Every connection is a real one: a socket of the app's, a handshake with the endpoint it was led to, a question
and its answer. What an endpoint got is counted behind its own door. Ten thousand of these take half a minute,
so that the suite makes 1,600 (`SPREAD_CONNECTIONS=10000` makes them all), and ten thousand which are searched
for and dialled as ever but end before the handshake. `--log-cli-level=INFO` shows the figures.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import trio

from agent.base.address import TcpAddress
from agent.net.accept import accept_all
from agent.net.admission import Slot
from agent.net.dial import dial
from agent.outbound.candidates import CandidateSearch
from agent.outbound.upstream_state import UpstreamState, counted
from tests.support.socket_pairs import listener
from tests.support.two_sidecars import UPSTREAM, Mesh, echo, endpoint, inbound, mesh, one, until
from tests.support.upstream_doubles import surroundings
from tests.upstreams.test_choose import Stopwatch
from upstreams.endpoints import Endpoint

Behind = Callable[[socket.socket], Awaitable[None]]

figures = logging.getLogger("scenarios.figures")

WEIGHTS = (1, 1, 2, 4, 8)
AT_ONCE = 16
CONNECTIONS = int(os.getenv("SPREAD_CONNECTIONS", "1600"))


async def nobody(caller: socket.socket) -> None:
    """No half is behind the door."""
    caller.close()


@dataclass(slots=True)
class Door:
    """An endpoint: its own listener before db's half. `slow`: seconds it keeps every caller waiting."""

    endpoint: Endpoint
    sock: socket.socket
    served: int = 0
    slow: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def serve(self, m: Mesh, behind: Behind) -> None:
        """Until it is closed; whoever is served then is served to the end."""

        async def handler(caller: socket.socket, _place: Slot) -> None:
            self.served += 1
            await trio.sleep(self.slow)
            await behind(caller)

        async with trio.open_nursery() as connections:
            with self.scope, self.sock:
                admission, events = m.db.admission, m.db.events
                await accept_all(
                    [self.sock],
                    handler,
                    purpose="tests",
                    connections=connections,
                    admission=admission,
                    events=events,
                )


@dataclass(slots=True)
class Street:
    """Both halves and the doors."""

    mesh: Mesh
    clock: Stopwatch
    doors: list[Door]
    behind: Behind
    nursery: trio.Nursery

    async def call(self, connections: int) -> list[int]:
        """So many of web's connections, a few at a time; how many each door got of them."""

        async def once() -> None:
            async with await self.mesh.connect() as client:
                await client.send_all(b"?")
                assert await client.receive_some() == b"?"

        got = await self.count(connections, once)
        await self.mesh.quiet()
        return got

    async def dial(self, connections: int) -> list[int]:
        """The same, but for the handshake: a door closes as soon as it has counted."""
        targets = self.mesh.targets

        async def once() -> None:
            candidate = await CandidateSearch(targets).next()
            assert candidate is not None
            address = targets.address(candidate)
            with (
                counted(targets, candidate.hop.key),
                await dial(TcpAddress(address.host, address.port), 2) as sock,
            ):
                await trio.lowlevel.wait_readable(sock)

        return await self.count(connections, once)

    async def count(self, connections: int, once: Callable[[], Awaitable[None]]) -> list[int]:
        """What each door got meanwhile."""
        before = [door.served for door in self.doors]
        left = iter(range(connections))

        async def caller() -> None:
            for _ in left:
                await once()

        async with trio.open_nursery() as callers:
            for _ in range(AT_ONCE):
                callers.start_soon(caller)
        return [door.served - earlier for door, earlier in zip(self.doors, before, strict=True)]

    def reopen(self, door: Door) -> None:
        """Listen again where it did."""
        place = door.endpoint.service_address, door.endpoint.port
        door.sock, door.scope = socket.create_server(place), trio.CancelScope()
        door.sock.setblocking(False)
        self.nursery.start_soon(door.serve, self.mesh, self.behind)


@contextlib.asynccontextmanager
async def street(weights: Sequence[int], behind: Behind | None = None) -> AsyncIterator[Street]:
    """A door for each of the weights; db's half is behind all of them unless something else is."""
    async with mesh(echo) as m, trio.open_nursery() as nursery:
        s = Street(m, Stopwatch(), [], behind or partial(inbound, m), nursery)
        m.targets = UpstreamState(UPSTREAM, surroundings(m, m.told, s.clock, m.loads))
        for number, weight in enumerate(weights):
            sock = listener()
            found = endpoint(sock.getsockname()[1], name=f"db-{number}")
            s.doors.append(Door(replace(found, weight=weight), sock))
            nursery.start_soon(s.doors[-1].serve, m, s.behind)
        m.endpoints.publish(one(*(door.endpoint for door in s.doors)))
        yield s
        nursery.cancel_scope.cancel()


def ideal(connections: int, weights: Sequence[int]) -> list[float]:
    return [connections * weight / sum(weights) for weight in weights]


@pytest.mark.timeout(300)
async def test_connections_are_spread_by_weight_within_three_percent() -> None:
    async with street(WEIGHTS) as s:
        got = await s.call(CONNECTIONS)
    figures.info("%d connections over weights %s: %s", CONNECTIONS, WEIGHTS, got)
    assert sum(got) == CONNECTIONS
    assert not s.mesh.web.events.attempts
    assert got == pytest.approx(ideal(CONNECTIONS, WEIGHTS), rel=0.03)


async def test_ten_thousand_that_are_only_dialled_are_spread_by_weight_within_three_percent() -> None:
    async with street(WEIGHTS, nobody) as s:
        got = await s.dial(10_000)
    figures.info("10,000 dialled over weights %s: %s", WEIGHTS, got)
    assert sum(got) == 10_000
    assert got == pytest.approx(ideal(10_000, WEIGHTS), rel=0.03)


async def test_a_slow_one_gets_less() -> None:
    async with street((1, 1, 1)) as s:
        s.doors[0].slow = 1.5  # many times what a handshake takes on a busy machine
        slow, *others = await s.call(600)
    figures.info("one of three is slow: %s to %s", slow, others)
    assert slow < 0.7 * min(others)


async def test_an_ejected_one_gets_none_and_comes_back() -> None:
    async with street((1, 1, 1)) as s:
        door, m = s.doors[0], s.mesh
        door.scope.cancel()
        await until(lambda: door.sock.fileno() == -1)
        got = await s.call(100)
        assert m.told.ejections == ["db-0"]
        assert (got[0], sum(got)) == (0, 100)
        s.reopen(door)
        assert (await s.call(200))[0] == 0
        s.clock.now += UPSTREAM.ejection.ejection_time
        beginning = await s.call(300)
        assert 0 < beginning[0] < 0.5 * min(beginning[1:])
        s.clock.now += UPSTREAM.ejection.slow_start
        assert await s.call(300) == pytest.approx([100, 100, 100], rel=0.1)
