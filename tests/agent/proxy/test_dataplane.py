"""What happens with a connection before there is anything to serve it with, and who hears of it."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
import trio

from agent.connections.ledger import Ledger
from agent.connections.reauthorize import Judge
from agent.connections.records import Direction, FailedAttempt
from agent.net.accept import Admission
from agent.net.dial import DialReason
from agent.net.handshake import Way
from agent.outbound.outbound import OutboundReason
from agent.policy.http_mode import HttpMode
from agent.policy.intentions import Intentions
from agent.proxy.dataplane import STEPS, Handlers, Reactions
from agent.relay.relay import Relay
from agent.relay.splice import Ending
from tests.support.agent_parts import assembled, registration


async def test_a_caller_who_comes_when_the_app_has_gone_from_the_registration_is_let_go(
    nursery: trio.Nursery,
) -> None:
    parts = assembled(nursery).parts
    handlers = Handlers(parts, None)  # type: ignore[arg-type]  # nothing gets as far as the relay
    for placed in (None, registration(local_app=None)):
        if placed is not None:
            parts.placement.publish(placed)
        ours, theirs = socket.socketpair()
        await handlers.inbound(ours, Admission().enter())
        assert theirs.recv(1) == b""
        theirs.close()


class Turns(trio.abc.Instrument):
    """Counts the scheduler's."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize(("http", "most"), [(HttpMode.ALWAYS, STEPS), (HttpMode.NEVER, 20)])
async def test_where_requests_are_judged_a_few_steps_of_handshakes_come_in_each_turn(
    nursery: trio.Nursery, http: HttpMode, most: int
) -> None:
    """A relayed connection is served within the step; a judged one is a task, and waits for its turn."""
    parts = assembled(nursery).parts
    parts.intentions.publish(Intentions(destination="web", rules=(), default_allow=True))
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    steps: Counter[int] = Counter()

    async def step(way: Way) -> None:
        await way()
        steps[turns.count] += 1

    with Relay() as relay:
        handlers = Handlers(parts, relay)
        async with trio.open_nursery() as callers:
            for _ in range(20):
                callers.start_soon(step, handlers.way(http))
    assert max(steps.values()) == most


async def test_a_caller_is_served_so_that_its_handshake_makes_way(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = assembled(nursery).parts
    parts.placement.publish(registration(protocol="http", identity_header=True))
    parts.intentions.publish(Intentions(destination="web", rules=(), default_allow=True))
    given: list[Way] = []

    async def serve(_sock: socket.socket, *, way: Way, **_: object) -> None:
        given.append(way)

    monkeypatch.setattr("agent.proxy.dataplane.serve_inbound", serve)
    with Relay() as relay, socket.socket() as sock:
        handlers = Handlers(parts, relay)
        await handlers.inbound(sock, Admission().enter())
        parts.placement.publish(registration())
        await handlers.inbound(sock, Admission().enter())
        assert given == [handlers.way(HttpMode.ALWAYS), relay.make_way]


@pytest.mark.parametrize("underscores", [True, False])
async def test_a_caller_is_served_with_the_names_that_the_definition_lets_through(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, underscores: bool
) -> None:
    parts = assembled(nursery).parts
    parts.placement.publish(registration(protocol="http", underscores_in_headers=underscores))
    given: list[bool] = []

    async def serve(_sock: socket.socket, *, underscores_in_headers: bool, **_: object) -> None:
        given.append(underscores_in_headers)

    monkeypatch.setattr("agent.proxy.dataplane.serve_inbound", serve)
    with Relay() as relay, socket.socket() as sock:
        await Handlers(parts, relay).inbound(sock, Admission().enter())
    assert given == [underscores]


async def test_the_log_and_the_judge_hear_of_every_connection(nursery: trio.Nursery) -> None:
    bench = assembled(nursery)
    parts = bench.parts
    heard: list[int] = []
    judge = Judge(parts.ledger, parts.intentions, parts.contexts, parts.clock, heard.append)
    bench.reactions.attach(parts, judge)
    with parts.ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        attempt = FailedAttempt(endpoint="e", address="a", reason=DialReason.REFUSED, detail="d")
        parts.ledger.attempt_failed(connection, attempt)
        connection.relaying()
        connection.end(Ending.CLEAN)
    with parts.ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        connection.end(OutboundReason.NO_ENDPOINTS)
    assert bench.events() == [
        "attempt.failed",
        "connection.opened",
        "connection.closed",
        "connection.refused",
    ]


async def test_before_there_is_anybody_to_tell_nobody_is_told(nursery: trio.Nursery) -> None:
    ledger = Ledger(assembled(nursery).parts.clock, Reactions())
    with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        attempt = FailedAttempt(endpoint="e", address="a", reason=DialReason.REFUSED, detail="d")
        ledger.attempt_failed(connection, attempt)
        connection.relaying()
        connection.end(Ending.CLEAN)
    with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        connection.end(OutboundReason.NO_ENDPOINTS)
    assert len(ledger.recent()) == 2
