"""A start whose public port is taken: the rest is served, and nothing says ready before the port is had."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.phase import Phase
from agent.base.prometheus import text
from agent.config.settings import resolve
from agent.observe.announcement import Announcement
from agent.observe.metrics import families
from agent.observe.readiness import missing
from agent.process.systemd import Notifier
from tests.support.agent_in_process import Life, answers, free_port, life, live, upstream
from tests.support.agent_parts import agent_bench

READY = "READY=1"


class Manager:
    """The service manager's end of sd_notify(3): keeps every message, its lines joined by blanks.

    The kernel holds ten messages at most, so that it has to be asked every few seconds.
    """

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)
        self._messages: list[str] = []
        self.notifier = Notifier(str(path))

    @property
    def told(self) -> list[str]:
        """Every message so far."""
        while True:
            try:
                self._messages.append(self._sock.recv(4096).decode().replace("\n", " "))
            except BlockingIOError:
                return self._messages

    def heard(self, word: str) -> list[str]:
        """The messages with that word."""
        return [message for message in self.told if word in message]

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """What listens where the agent wants to."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def blocked(nursery: trio.Nursery, manager: Manager, other: socket.socket, **flags: str) -> tuple[Life, int]:
    """An agent that has not started and wants the other's port, and the port of its upstream."""
    port = free_port()
    one = life(nursery, listen=f"127.0.0.1:{other.getsockname()[1]}", **flags)
    one.cycle.notifier = manager.notifier
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    one.bench.well(upstream("db", port))
    return one, port


def told_of_readiness(one: Life) -> list[str]:
    return [event for event in one.bench.events() if event in {"ready", "unready"}]


async def seconds_until(true: Callable[[], object]) -> int:
    """Look once a second of virtual time until it is so; return how long that took."""
    for second in range(1000):
        if true():
            return second
        await trio.sleep(1)
    raise AssertionError("not within 1000 s")


async def test_public_port_in_use_is_told_as_unready_until_it_is_had(
    nursery: trio.Nursery, manager: Manager, other: socket.socket, autojump_clock: MockClock
) -> None:
    one, port = blocked(nursery, manager, other)

    async def act() -> None:
        await seconds_until(lambda: len(manager.heard("EXTEND_TIMEOUT_USEC=30000000")) > 12)
        assert told_of_readiness(one) == ["unready"]
        assert not manager.heard(READY)
        assert manager.heard("STATUS=")[-1].startswith("STATUS=not ready · listener: cannot listen on 127.")
        assert "sidecar_ready 0" in text(await families(one.bench.agent))
        assert "for callers from the mesh: it is in use" in str(missing(one.bench.agent))
        assert answers(port)  # the rest is served
        other.close()
        await seconds_until(lambda: manager.heard(READY))
        assert told_of_readiness(one) == ["unready", "ready"]
        (line,) = [line for line in one.bench.log if " ready: " in line]
        assert float(line.partition("seconds=")[2]) >= 11
        assert "sidecar_ready 1" in text(await families(one.bench.agent))
        assert len(manager.heard(READY)) == 1
        assert manager.heard(READY)[0].startswith("READY=1 STATUS=serving")

    await live(one, act)


@pytest.mark.parametrize("start_timeout", ["40", "0"])
async def test_a_port_that_is_never_had_ends_a_start_after_its_time_and_not_what_is_served(
    start_timeout: str,
    nursery: trio.Nursery,
    manager: Manager,
    other: socket.socket,
    autojump_clock: MockClock,
) -> None:
    """Else the service manager would wait for ever, and whatever is ordered after this unit with it."""
    one, port = blocked(nursery, manager, other, start_timeout=start_timeout)

    async def act() -> None:
        seconds = float(start_timeout) or 60
        assert await seconds_until(lambda: manager.heard(READY)) == pytest.approx(seconds, abs=2)
        assert manager.heard(READY)[0].startswith("READY=1 STATUS=not ready · listener: ")
        assert told_of_readiness(one) == ["unready"]
        extended = len(manager.heard("EXTEND_TIMEOUT"))
        await trio.sleep(8)
        assert len(manager.heard("EXTEND_TIMEOUT")) == extended
        assert len(manager.heard(READY)) == 1
        assert answers(port)
        other.close()
        await seconds_until(lambda: told_of_readiness(one) == ["unready", "ready"])

    await live(one, act)


async def test_reload_of_a_start_that_is_not_ready_says_neither_reloading_nor_ready(
    nursery: trio.Nursery, manager: Manager, other: socket.socket, autojump_clock: MockClock
) -> None:
    one, _ = blocked(nursery, manager, other)
    listen = [f"127.0.0.1:{other.getsockname()[1]}"]
    one.cycle.read = lambda: resolve({"sidecar-for": ["web"], "listen": listen}, {})

    async def act() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await seconds_until(lambda: "settings.reloaded" in one.bench.events())
        await trio.sleep(2)
        assert not manager.heard(READY)
        assert not manager.heard("RELOADING=1")

    await live(one, act)


async def test_upgrade_that_lacks_something_is_over_for_the_manager_at_once(
    nursery: trio.Nursery, manager: Manager
) -> None:
    """Which has waited for READY=1 since RELOADING=1, and would have the new program ended by a timeout."""
    bench = agent_bench(nursery)
    bench.control.phase = Phase.SERVING
    Announcement(bench.agent, manager.notifier).look(0.1, 0.0)
    assert bench.events() == ["unready"]
    (line,) = manager.told
    assert line.startswith("READY=1 STATUS=not ready · registration: ")
