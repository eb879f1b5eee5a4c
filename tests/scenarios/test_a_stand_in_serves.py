"""One connection through all that can be wrong with its preferred target; limits and deadlines by name."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio

from agent import snapshot
from agent.net.dial import DialReason
from agent.outbound.reasons import OutboundReason
from agent.outbound.upstream_state import UpstreamState
from certs.peer import PeerReason
from tests.support.other_callee import in_place_of_db
from tests.support.socket_pairs import contexts_of, listener
from tests.support.two_sidecars import UPSTREAM, Mesh, echo, endpoint, mesh, now, until
from tests.support.upstream_doubles import Lookups, surroundings
from upstreams.spec import MeshGatewayMode, ServiceDestination

PREFERRED, STAND_IN = "db@dc2", "db@dc3"


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """A port whose backlog is full: what is sent there vanishes, as behind a cut WAN."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])
        for sock in waiting:
            sock.close()


@contextlib.asynccontextmanager
async def with_stand_in(**config: Any) -> AsyncIterator[tuple[Mesh, Lookups]]:
    """db's sidecar is the stand-in; where the preferred target is, the test says."""
    async with mesh(echo) as m:
        lookups = Lookups()
        upstream = replace(UPSTREAM, failover=(ServiceDestination("db", "dc3"),), **config)
        m.targets = UpstreamState(upstream, surroundings(lookups, m.told, loads=m.loads))
        m.targets.sources()
        lookups.answer(STAND_IN, endpoint(m.public.port))
        yield m, lookups


async def is_served(m: Mesh) -> float:
    """Send before anybody can have answered, have it all back; how long that took."""
    began = trio.current_time()
    client = await m.connect()
    async with client:
        await client.send_all(b"to whom it may concern")
        received = b""
        while len(received) < 22:
            received += await client.receive_some()
        assert received == b"to whom it may concern"
        return trio.current_time() - began


async def is_refused(m: Mesh, reason: OutboundReason) -> float:
    began = trio.current_time()
    finished = len(m.web.events.refused_ones)
    client = await m.connect()
    async with client:
        with contextlib.suppress(trio.BrokenResourceError):
            assert await client.receive_some() == b""
        await until(lambda: len(m.web.events.refused_ones) > finished)
    assert m.web.events.refused_ones[-1].reason is reason
    return trio.current_time() - began


async def test_behind_a_cut_wan_the_first_waits_a_moment_and_the_next_not_at_all() -> None:
    with swallowing() as port:
        async with with_stand_in(connect_timeout=0.5) as (m, lookups):
            lookups.answer(PREFERRED, endpoint(port, name="far"))
            assert 0.4 < await is_served(m) < 2
            assert m.told.changes == []  # nobody has looked since
            assert await is_served(m) < 0.4
            assert m.told.changes == [(PREFERRED, STAND_IN)]
            assert [attempt.reason for attempt in m.web.events.attempts] == [DialReason.TIMEOUT]


async def test_the_deadline_is_shared_with_the_stand_in() -> None:
    """A connect timeout longer than the deadline must not use it up."""
    with swallowing() as port:
        async with with_stand_in(connect_timeout=60.0, deadline=1.0) as (m, lookups):
            lookups.answer(PREFERRED, endpoint(port, name="far"))
            assert 0.4 < await is_served(m) < 0.9


async def test_many_dead_instances_do_not_use_it_up_either() -> None:
    async with with_stand_in() as (m, lookups):
        with listener() as closed:
            port = closed.getsockname()[1]
        lookups.answer(PREFERRED, *(endpoint(port, name=f"far-{number}") for number in range(40)))
        assert await is_served(m) < 1
        assert {attempt.reason for attempt in m.web.events.attempts} == {DialReason.REFUSED}


async def test_an_expired_leaf_is_no_reason_to_fail() -> None:
    async with with_stand_in() as (m, lookups):
        day = timedelta(days=1)
        leaf = m.root.leaf(service="db", datacenter="dc2", not_before=now() - 2 * day, not_after=now() - day)
        old = contexts_of(leaf, m.root)
        async with in_place_of_db(m, old) as answer:
            assert m.endpoints.value is not None
            lookups.answer(PREFERRED, *m.endpoints.value.endpoints)

            async def answer_once() -> None:
                sock, _ = await answer()
                sock.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_once)
                await is_served(m)
        assert [attempt.reason for attempt in m.web.events.attempts] == [PeerReason.EXPIRED]


async def test_when_nobody_serves_in_time_the_deadline_is_named() -> None:
    with swallowing() as port:
        async with with_stand_in(connect_timeout=60.0, deadline=0.5) as (m, lookups):
            for name in (PREFERRED, STAND_IN):
                lookups.answer(name, endpoint(port, name=name))
            assert 0.4 < await is_refused(m, OutboundReason.DEADLINE) < 1.5
            assert "not served within 0.5 s" in m.web.events.refused_ones[-1].detail


async def test_no_more_connections_than_the_limit() -> None:
    async with with_stand_in(max_connections=2) as (m, lookups):
        lookups.answer(PREFERRED)
        async with await m.connect() as first, await m.connect() as second:
            for client in (first, second):
                await client.send_all(b"x")
                assert await client.receive_some() == b"x"
            await is_refused(m, OutboundReason.OVERFLOW)
            assert "max_connections is 2" in m.web.events.refused_ones[-1].detail
        assert m.targets.overflow == {"upstream_overflow": 1}
        await m.quiet()
        await is_served(m)


async def test_no_more_waiting_than_the_limit() -> None:
    with swallowing() as port:
        async with with_stand_in(max_pending=1, connect_timeout=0.4) as (m, lookups):
            lookups.answer(PREFERRED, endpoint(port, name="far"))
            async with await m.connect() as waiting:
                await waiting.send_all(b"x")
                await until(lambda: m.targets.pending > 0)
                await is_refused(m, OutboundReason.PENDING_OVERFLOW)
                assert m.targets.overflow == {"upstream_pending_overflow": 1}
                assert await waiting.receive_some() == b"x"
                assert m.targets.pending == 0
                await is_served(m)


async def test_no_gateway_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "NEWS_SECONDS", 0.1)
    async with with_stand_in(mesh_gateway=MeshGatewayMode.LOCAL) as (m, lookups):
        lookups.answer(PREFERRED, endpoint(m.public.port))
        await is_refused(m, OutboundReason.NO_GATEWAYS)


async def test_through_a_gateway_the_peer_must_be_who_the_instance_is() -> None:
    """The gateway here leads straight to db's sidecar, which is db of dc2 and of no other datacenter."""
    async with with_stand_in(mesh_gateway=MeshGatewayMode.LOCAL) as (m, lookups):
        lookups.answer(PREFERRED, endpoint(1, name="unreachable itself"))
        assert next(m.targets.candidates(), None) is None  # looks for gateways
        lookups.answer("mesh gateways", endpoint(m.public.port, name="gate", datacenter="dc1"))
        await is_served(m)
        await m.quiet()
        assert m.web.ledger.recent()[-1].dialled.endswith("mesh gateway)")
        lookups.answer(PREFERRED, endpoint(1, name="another", datacenter="dc9"))
        lookups.answer(STAND_IN)
        await is_refused(m, OutboundReason.ALL_FAILED)
        assert m.web.events.attempts[-1].reason is OutboundReason.WRONG_IDENTITY


async def test_when_all_targets_are_empty_there_is_nothing_to_wait_for() -> None:
    async with with_stand_in() as (m, lookups):
        for name in (PREFERRED, STAND_IN):
            lookups.answer(name)
        assert await is_refused(m, OutboundReason.NO_ENDPOINTS) < 1
