"""What the service manager is told from start to end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.process.systemd import Notifier
from tests.support.agent_in_process import live, public_life


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def told(manager: socket.socket) -> list[str]:
    """Every message so far, its lines joined by blanks."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode().replace("\n", " "))
        except BlockingIOError:
            return messages


async def test_it_is_told_what_is_missing_then_that_it_serves_and_how_long_the_end_may_take(
    nursery: trio.Nursery, manager: socket.socket
) -> None:
    one = public_life(nursery, drain_seconds="300", leave_seconds="7")
    one.cycle.notifier = Notifier(manager.getsockname())
    one.bench.well()

    async def act() -> None:
        starting = told(manager)
        assert starting[:2] == [
            "EXTEND_TIMEOUT_USEC=30000000",
            "STATUS=starting · registration: no answer yet · gives up after 60 s",
        ]
        assert any(line.startswith("READY=1 STATUS=serving") for line in starting)
        one.cycle.read = lambda: None
        os.kill(os.getpid(), signal.SIGHUP)

    await live(one, act)
    assert told(manager)[-1] == "STOPPING=1 EXTEND_TIMEOUT_USEC=330000000 STATUS=draining"
