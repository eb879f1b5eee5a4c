"""What happens with a connection before there is anything to serve it with, and who hears of it."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
import trio

from agent.connections.connection import Connection
from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import Direction, FailedAttempt
from agent.inbound.verdict import Inbound
from agent.net.admission import Admission
from agent.net.dial import DialReason
from agent.outbound.reasons import OutboundReason
from agent.proxy.dataplane import STEPS
from agent.relay.splice import Ending
from tests.support.agent_parts import agent_bench, registration
from tests.support.policies import policy_of


async def test_a_caller_who_comes_when_the_app_has_gone_from_the_registration_is_let_go(
    nursery: trio.Nursery,
) -> None:
    bench = agent_bench(nursery)
    for effective in (None, registration(local_app=None)):
        if effective is not None:
            bench.snapshot.registration.publish(effective)
        ours, theirs = socket.socketpair()
        await bench.data.inbound(ours, Admission().enter())
        assert theirs.recv(1) == b""
        theirs.close()


class Turns(trio.abc.Instrument):
    """Counts the scheduler's."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize(("judged", "most"), [(True, STEPS), (False, 20)])
async def test_where_requests_are_judged_a_few_steps_of_handshakes_come_in_each_turn(
    nursery: trio.Nursery, judged: bool, most: int
) -> None:
    """A relayed connection is served within the step; a judged one is a task, and waits for its turn."""
    bench = agent_bench(nursery)
    bench.snapshot.registration.publish(registration(protocol="http", identity_header=judged))
    bench.snapshot.policy.publish(policy_of(None, "web", default_allow=True))
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    steps: Counter[int] = Counter()

    async def step() -> None:
        await bench.data.before_step()
        steps[turns.count] += 1

    async with bench.data.running(), trio.open_nursery() as callers:
        for _ in range(20):
            callers.start_soon(step)
    assert max(steps.values()) == most


@pytest.mark.parametrize("underscores", [True, False])
async def test_a_caller_is_served_with_the_names_that_the_definition_lets_through(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, underscores: bool
) -> None:
    bench = agent_bench(nursery)
    bench.snapshot.registration.publish(registration(protocol="http", underscores_in_headers=underscores))
    given: list[bool] = []

    async def serve(_sock: socket.socket, _caller: object, shared: Inbound) -> None:
        given.append(shared.underscores_in_headers)

    monkeypatch.setattr("agent.inbound.inbound.serve", serve)
    with socket.socket() as sock:
        await bench.data.inbound(sock, Admission().enter())
    assert given == [underscores]


async def test_the_log_and_the_reauthorizer_hear_of_every_connection(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Connection] = []
    monkeypatch.setattr(Reauthorizer, "opened", lambda _judge, connection: heard.append(connection))
    bench = agent_bench(nursery)
    with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        attempt = FailedAttempt(endpoint="e", address="a", reason=DialReason.REFUSED, detail="d")
        bench.data.ledger.attempt_failed(connection, attempt)
        connection.relaying()
        connection.end(Ending.CLEAN)
    with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db") as refused:
        refused.end(OutboundReason.NO_ENDPOINTS)
    assert heard == [connection]
    assert bench.events() == [
        "attempt.failed",
        "connection.opened",
        "connection.closed",
        "connection.refused",
    ]
