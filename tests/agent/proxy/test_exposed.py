"""The listeners of exposed paths go along with the registration."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import trio
import trio.testing

from agent.base.address import TcpAddress
from agent.config.exposed_paths import ExposedPath
from agent.connections.ledger import Ledger
from agent.inbound.exposed import Callers
from agent.net.listeners import Listeners
from agent.proxy.exposed import ExposedPaths
from tests.scenarios.recorder import Recorder
from tests.support.agent_in_process import free_port
from tests.support.agent_parts import agent_bench, registration


def at(port: int, path: str = "/health") -> ExposedPath:
    return ExposedPath(path=path, bind=TcpAddress("127.0.0.1", port), app=TcpAddress("127.0.0.1", 1))


def open_at(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


async def test_listeners_follow_and_those_that_stay_are_not_touched(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    ledger = Ledger(lambda: datetime.now(UTC), Recorder())
    one, two, three = free_port(), free_port(), free_port()
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        listeners = Listeners(bench.agent.log).serve_in(loops, connections)
        exposed = ExposedPaths(listeners=listeners, ledger=ledger, callers=Callers(("host",)))
        await exposed.bind(registration(exposed=(at(one), at(two))))
        listeners.open()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [open_at(port) for port in (one, two, three)] == [True, True, False]
        kept = listeners.get(f"exposed {one}")
        await exposed.follow(registration(exposed=(at(one), at(three), at(two, "/other"))))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [open_at(port) for port in (one, two, three)] == [True, True, True]
        assert listeners.get(f"exposed {one}") is kept
        await exposed.follow(registration())
        assert [open_at(port) for port in (one, two, three)] == [False, False, False]
        loops.cancel_scope.cancel()
