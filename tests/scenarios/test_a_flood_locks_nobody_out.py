"""Callers who say nothing, or begin and stop, keep no other from being served; nor does a restart's queue."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

import pytest
import trio

from agent.process.systemd import Inherited
from tests.scenarios.test_a_burst_is_borne import Server, calm, serving, until
from tests.support.agent_in_process import App, free_port, life, live

figures = logging.getLogger("figures")

CROWD = 600  # the places are 512
EACH_SECOND = 56
CALLERS = 10
PATIENCE = 5.0  # seconds for a caller; the silent ones would be there for ten
FEW, QUEUE = 16, 160  # places at a restart, and callers in the queue
BEGINNING = b"\x16\x03\x01\x02\x00\x01"  # of a ClientHello of 512 bytes

MANY = [f"127.0.{net}.{host}" for net in range(1, 4) for host in range(1, 21)]
ONE = ["127.0.9.9"]


async def flood(server: Server, sources: Sequence[str], first: bytes) -> None:
    """Some more in each second, for ever."""
    while True:
        for source in sources:
            server.dial(source, first)
            await trio.sleep(1 / EACH_SECOND)


@pytest.mark.parametrize("sources", [MANY, ONE], ids=["from many", "from one"])
@pytest.mark.parametrize("first", [b"", BEGINNING], ids=["silent", "stalled"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_caller_from_elsewhere_is_served_while_it_lasts(
    nursery: trio.Nursery, sources: Sequence[str], first: bytes, workers: str
) -> None:
    async with serving(nursery, "-workers", workers) as server:
        for number in range(CROWD):
            server.dial(sources[number % len(sources)], first)
        async with trio.open_nursery() as lasting:
            lasting.start_soon(flood, server, sources, first)
            waits = []
            for _ in range(CALLERS):
                began = trio.current_time()
                await server.served(server.dial(), PATIENCE)
                waits.append(trio.current_time() - began)
            figures.info("%s worker(s): a caller waited %.0f ms at most", workers, 1000 * max(waits))
            lasting.cancel_scope.cancel()
        row = await server.public()
        assert (row["live"] - row["handshakes"], row["overflow"]) == (CALLERS, 0)


async def test_once_it_is_over_nothing_is_left_of_it(nursery: trio.Nursery) -> None:
    async with serving(nursery) as server:
        crowd = [server.dial(source, BEGINNING) for source in MANY for _ in range(CROWD // len(MANY))]
        for sock in crowd:
            sock.close()
        row = await until(server, calm)
        assert row["live"] == 0


async def test_all_who_came_during_a_restart_are_served(nursery: trio.Nursery) -> None:
    """The socket unit's queue holds them until the new process accepts: more than have places at once."""
    app = App()
    nursery.start_soon(app.serve)
    sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
    sock.setblocking(False)
    handed = Inherited(name="public", sock=sock)
    life_ = life(nursery, handed, service_addr=app.address, max_handshakes=str(FEW))
    waiting = Server(root=life_.bench.well(port=free_port()), address=sock.getsockname(), admin="", pid=0)

    async def all_are_served() -> None:
        async with trio.open_nursery() as callers:
            for caller in waiting.callers:
                callers.start_soon(waiting.served, caller)

    for _ in range(QUEUE):
        waiting.dial()
    await live(life_, all_are_served)
    for caller in waiting.callers:
        caller.close()
    app.sock.close()
    sock.close()
