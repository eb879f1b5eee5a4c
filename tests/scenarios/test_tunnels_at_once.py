"""Connections that a ready tunnel serves without a task: the same books, and the slow way where need be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.base.address import TcpAddress
from agent.connections.records import CloseReason, Direction
from agent.outbound import at_once
from agent.outbound.reasons import OutboundReason
from agent.relay.splice import Ending
from tests.scenarios.test_tunnels import called, connect, ended, refused_after_a_byte, tunnelling
from tests.support.two_sidecars import Mesh, endpoint, one, until


@pytest.fixture
async def m(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    """A mesh whose tunnel is up: from the second connection on no task is needed."""
    async with tunnelling() as made:
        await (await called(made)).aclose()
        await made.quiet()
        yield made


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that were served at once."""
    found: list[object] = []
    begin = at_once._Call.begin

    def noted(self: at_once._Call, *way: object) -> None:
        found.append(way)
        begin(self, *way)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(at_once._Call, "begin", noted)
    return found


async def test_it_is_in_every_book_while_it_lives_and_after(m: Mesh, taken: list[object]) -> None:
    stream = await called(m)
    assert len(taken) == 1
    (live,) = m.web.ledger.live()
    assert live in m.targets.connections
    assert sum(m.targets.loads.values()) == 1
    assert (live.upstream, live.peer and live.peer.id.service) == ("db@dc2", "db")
    assert live.dialled.endswith("tunnel)")
    await stream.aclose()
    await m.quiet()
    assert not m.targets.connections
    assert not m.targets.loads
    assert m.web.admission.live == 0
    assert m.web.ledger.counters() == {(Direction.OUTBOUND, "clean"): 2}


async def test_it_can_be_cut_from_outside(m: Mesh, taken: list[object]) -> None:
    stream = await called(m)
    (live,) = m.web.ledger.live()
    live.close(CloseReason.UPSTREAM_REMOVED, "gone")
    await ended(stream)
    await m.quiet()
    assert m.web.ledger.recent()[-1].reason is CloseReason.UPSTREAM_REMOVED
    assert m.web.admission.live == 0
    assert taken


async def test_a_refusal_before_a_byte_tries_the_next_candidate(m: Mesh, taken: list[object]) -> None:
    first = replace(endpoint(m.public.port), tunnels=True)
    m.app.address = TcpAddress("127.0.0.1", 1)
    m.endpoints.publish(one(first, endpoint(1, name="db-2")))
    stream = await connect(m)
    await ended(stream)
    await until(lambda: not m.web.ledger.live())
    tried = {attempt.endpoint.partition(" ")[0] for attempt in m.web.events.attempts}
    assert tried == {"db-1", "db-2"}
    assert m.web.ledger.recent()[-1].reason in (OutboundReason.ALL_FAILED, OutboundReason.REFUSED_BY_PEER)
    assert m.web.admission.live == 0


async def test_a_refusal_after_bytes_is_final_and_named(m: Mesh, taken: list[object]) -> None:
    m.app.address = TcpAddress("127.0.0.1", 1)
    await refused_after_a_byte(m)
    await until(lambda: not m.web.ledger.live())
    assert "answered 503 app_connect_refused" in m.web.ledger.recent()[-1].detail


async def test_a_limit_is_left_to_the_slow_way(m: Mesh, taken: list[object]) -> None:
    kept = await called(m)
    m.targets.upstream = replace(m.targets.upstream, max_connections=1)
    await ended(await connect(m))
    await until(lambda: len(m.web.ledger.live()) == 1)
    assert m.web.ledger.recent()[-1].reason is OutboundReason.OVERFLOW
    assert len(taken) == 1
    await kept.aclose()


async def test_a_reset_of_our_app_is_named(m: Mesh, taken: list[object]) -> None:
    stream = await called(m)
    stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: reset
    await stream.aclose()
    await m.quiet()
    assert m.web.ledger.recent()[-1].reason is Ending.PLAIN_RESET
    assert taken
