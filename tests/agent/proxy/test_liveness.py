"""A handshake with ourselves through the real listener: seen by the watchdog, by no counter of callers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
import trio

from agent.net.dial import DialFailed, DialReason
from agent.observe.status import document
from agent.proxy import liveness
from tests.support.agent_in_process import Life, life, public_life
from tests.support.agent_parts import MATCH


async def while_serving(one: Life, act: Callable[[], Awaitable[None]]) -> None:
    """Run a life, act while it serves, and end it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await one.ready()
        await act()
        one.cycle.drain("the test")


async def test_a_serving_listener_has_no_failure_and_the_beat_is_no_caller(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    denied = {"SourceName": "*", "DestinationName": "web", "Action": "deny"}
    one.bench.consul.answer(MATCH, {"web": [denied]}, index=7)

    async def act() -> None:
        for _ in range(3):
            assert await one.bench.data.failure(5) == ""
        await one.until(lambda: one.bench.data.ledger.probes == 3)
        assert one.bench.data.ledger.count == 0
        assert one.bench.data.ledger.counters() == {}
        assert not [event for event in one.bench.events() if event.startswith("connection")]
        assert (await document(one.bench.agent))["recent"] == []

    await while_serving(one, act)


async def test_another_name_is_a_caller_like_any(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        one.bench.data.beat = "another"
        opening = one.bench.data.reconciler.listeners.get("public")
        contexts, now = one.bench.snapshot.credentials.value, one.bench.control.clock()
        assert await liveness.failure(opening, contexts, now, liveness.new_name(), 5) == ""
        await one.until(one.bench.data.ledger.counters)
        assert one.bench.data.ledger.probes == 0

    await while_serving(one, act)


async def test_a_listener_that_accepts_no_more_fails_by_the_deadline(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        opening = one.bench.data.reconciler.listeners.get("public")
        assert opening is not None
        (bound,) = opening.bound
        with bound.sock.dup():  # a socket that nothing accepts from
            opening.scope.cancel()
            assert opening.ended is not None
            await opening.ended.wait()
            assert await one.bench.data.failure(0.2) == "the public listener is closed: it has no socket"
            opening.bound = [bound]
            assert "the public listener is closed" in await one.bench.data.failure(0.2)

    await while_serving(one, act)


async def test_a_listener_that_is_never_served_fails_by_the_deadline(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        opening = one.bench.data.reconciler.listeners.get("public")
        assert opening is not None
        (before,) = opening.bound
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            before.sock, real = deaf, before.sock
            failed = await one.bench.data.failure(0.2)
            assert "no answer" in failed or "within 0.2 s" in failed
            before.sock = real

    await while_serving(one, act)


async def test_what_another_start_would_not_cure_is_no_failure(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = public_life(nursery, max_connections="1")
    one.bench.well()

    async def act() -> None:
        opening = one.bench.data.reconciler.listeners.get("public")
        assert opening is not None
        with socket.create_connection(one.address()):  # the only place
            await one.until(lambda: opening.admission.live == 1)
            assert await one.bench.data.failure(2) == ""
        contexts, now = one.bench.snapshot.credentials.value, one.bench.control.clock()
        assert contexts is not None
        end = contexts.credentials.leaf.not_after + timedelta(seconds=1)
        assert await liveness.failure(opening, contexts, end, "x", 1) == ""  # our leaf has expired
        opening.problem = "in use"
        assert await liveness.failure(opening, contexts, now, "x", 1) == ""
        opening.problem = ""
        assert await liveness.failure(None, contexts, now, "x", 1) == ""

        async def short(*_of: object) -> socket.socket:
            raise DialFailed(DialReason.NO_RESOURCES, "too many open files")

        monkeypatch.setattr(liveness, "dial", short)
        assert await liveness.failure(opening, contexts, now, "x", 1) == ""

    await while_serving(one, act)


async def test_without_a_public_listener_there_is_nothing_to_ask(nursery: trio.Nursery) -> None:
    one = life(nursery)
    one.bench.well(LocalServicePort=0)
    assert await one.bench.data.failure(1) == ""


@pytest.mark.parametrize(
    ("row", "full"),
    [
        (None, False),
        ({"live": 1, "limit": None, "handshakes": 3, "handshakes_limit": None}, False),
        ({"live": 1, "limit": 1, "handshakes": 0, "handshakes_limit": None}, True),
        ({"live": 1, "limit": 2, "handshakes": 4, "handshakes_limit": 4}, True),
    ],
)
def test_a_listener_is_full_by_either_limit(row: dict[str, int | None] | None, full: bool) -> None:
    assert liveness.is_full(row) is full
