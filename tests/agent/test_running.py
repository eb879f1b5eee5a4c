"""`sidecar run` as a process that serves: how it ends, what it says and to whom, what it weighs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.agent_process import command, environment, lines_until, sidecar
from tests.support.beside_consul import QUIET, everything, unused
from tests.support.fake_consul import FakeConsul

pytestmark = pytest.mark.slow


@pytest.fixture
async def consul(nursery: trio.Nursery) -> FakeConsul:
    return FakeConsul()


class Running:
    """A sidecar that runs."""

    def __init__(self, process: trio.Process, log: str) -> None:
        self.process = process
        self.log = log

    async def end(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(by)
        with trio.fail_after(20):
            assert self.process.stderr is not None
            async for chunk in self.process.stderr:
                self.log += chunk.decode()
            return await self.process.wait()


@asynccontextmanager
async def running(
    *words: str, environ: dict[str, str] | None = None, until: str = " ready: "
) -> AsyncIterator[Running]:
    """The sidecar, from ready on; killed at the end if it is still there."""
    process = await trio.lowlevel.open_process(
        command("run", *words), env=environment(environ), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        yield Running(process, await lines_until(process.stderr, until))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_runs_until_it_is_told_to_end(consul: FakeConsul, nursery: trio.Nursery) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET, "-log-format", "json")
    async with running(*words, until='"event":"ready"') as sidecar_:
        assert await sidecar_.end() == 0
        assert "Traceback" not in sidecar_.log
        events = [json.loads(line)["event"] for line in sidecar_.log.splitlines()]
    assert events[0] == "started"
    assert events[-1] == "drained"


async def test_told_to_end_before_it_is_ready_it_ends_cleanly() -> None:
    words = ("-sidecar-for", "web", "-http-addr", unused(), *QUIET)
    async with running(*words, until="watch.failed") as sidecar_:
        assert await sidecar_.end(by=signal.SIGINT) == 0


async def test_keys_and_tokens_are_in_no_line_and_no_answer(
    consul: FakeConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    admin = f"unix:{tmp_path}/admin.sock"
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, "-log-level", "debug")
    async with running(
        *words, "-admin-bind", admin, environ={"CONSUL_HTTP_TOKEN": "s3cret-token"}
    ) as sidecar_:
        told = [await sidecar("status", "-admin-bind", admin, *extra) for extra in ((), ("-json",))]
        await sidecar_.end()
    for text in (sidecar_.log, *(one.out + one.err for one in told)):
        assert "s3cret-token" not in text
        assert "PRIVATE KEY" not in text
    assert json.loads(told[1].out)["settings"]["token"] == {
        "value": "(set, not shown)",
        "origin": "environment CONSUL_HTTP_TOKEN",
    }
    assert not (tmp_path / "admin.sock").exists()


async def test_the_service_manager_hears_of_it(
    consul: FakeConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    heard: list[str] = []
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        await manager.bind(str(tmp_path / "notify"))

        async def hear() -> None:
            """Read at once, as a manager does: the kernel holds ten messages, and further ones are lost."""
            while True:
                heard.append((await manager.recv(4096)).decode())

        nursery.start_soon(hear)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET)
        async with running(*words, environ=environ) as sidecar_:
            await sidecar_.end()
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert "WATCHDOG=1" in heard
    ready = next(n for n, text in enumerate(heard) if text.startswith("READY=1"))
    stopping = next(n for n, text in enumerate(heard) if text.startswith("STOPPING=1"))
    assert ready < stopping


async def test_an_idle_agent_stays_within_its_memory(consul: FakeConsul, nursery: trio.Nursery) -> None:
    """In resident megabytes. The interpreter takes two more in another build of 3.11, and more in 3.13."""
    everything(consul)
    at = await consul.listen(nursery)
    async with running("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET) as sidecar_:
        await trio.sleep(0.2)
        pages = int(Path(f"/proc/{sidecar_.process.pid}/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        await sidecar_.end()
    assert resident <= (48 if sys.version_info < (3, 13) else 51), f"{resident:.1f} MB"


@pytest.mark.parametrize(("words", "loaded"), [((), False), (("-tunnel", "auto"), True)])
async def test_what_carries_tunnels_is_loaded_where_some_are_taken(
    consul: FakeConsul, nursery: trio.Nursery, words: Sequence[str], loaded: bool
) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    flags = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET, *words)
    async with running(*flags, environ={"PYTHONPROFILEIMPORTTIME": "1"}) as sidecar_:
        await sidecar_.end()
    imported = {line.rpartition("|")[2].strip() for line in sidecar_.log.splitlines() if "|" in line}
    assert "agent.relay.relay" in imported
    carriers = {"agent.h2", "agent.h2.connection", "agent.tunnel.tunnel"}
    assert carriers & imported == (carriers if loaded else set())
