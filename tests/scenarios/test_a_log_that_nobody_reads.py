"""A reader of our log that stops reading does not stop the agent: callers and probes are still answered."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.agent.test_running import running
from tests.support.agent_process import command, environment, lines_until, sidecar
from tests.support.beside_consul import everything, unused
from tests.support.fake_consul import FakeConsul

CALLS = 80  # of a line each; the pipe takes some thirty
NO_FAULTS = b"PUT /v1/internal/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def consul(nursery: trio.Nursery) -> FakeConsul:
    return FakeConsul()


def narrow(process: trio.Process) -> None:
    """Make the pipe at its standard error as small as can be."""
    with Path(f"/proc/{process.pid}/fd/2").open("wb") as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)


def addressed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def answer(address: str, request: bytes) -> bytes:
    """What is said back, up to the end of a head or of the stream."""
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(*addressed(address)) as stream:
            await stream.send_all(request)
            said = b""
            while b"\r\n\r\n" not in said and (chunk := await stream.receive_some()):
                said += chunk
            return said


async def live(admin: str) -> bool:
    request = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return (await answer(admin, request)).startswith(b"HTTP/1.1 200 ")


async def test_a_full_pipe_stops_neither_callers_nor_probes(
    consul: FakeConsul, nursery: trio.Nursery
) -> None:
    everything(consul)
    at, public, admin = await consul.listen(nursery), unused(), unused()
    words = ("-sidecar-for", "web", "-listen", public, "-http-addr", at, "-admin-bind", admin)
    async with running(*words, "-connection-log") as sidecar_:
        narrow(sidecar_.process)
        for _ in range(CALLS):
            assert await answer(public, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert await live(admin)
        assert await sidecar_.end() == 0
    assert sidecar_.log.count("reason=not_tls") == CALLS


@asynccontextmanager
async def without_standard_error(*words: str) -> AsyncIterator[trio.Process]:
    """A process that begins with descriptor 2 closed, as `2>&-` leaves it."""
    line = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command(*words)]
    process = await trio.lowlevel.open_process(line, env=environment(), stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_with_standard_error_closed_it_serves_and_says_elsewhere_that_the_log_is_lost(
    consul: FakeConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at, admin = await consul.listen(nursery), f"unix:{tmp_path}/admin.sock"
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, "-admin-bind", admin)
    async with without_standard_error("run", *words) as process:
        assert (await sidecar("wait", "-admin-bind", admin)).code == 0
        told = json.loads((await sidecar("status", "-admin-bind", admin, "-json")).out)
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path("/dev/null")  # and not a socket of ours
        process.terminate()
        assert await process.wait() == 0
    assert "standard error is closed: the log is lost" in told["complaints"]
    assert told["counters"]["log_lines_lost"]


async def test_with_standard_error_closed_a_mistake_has_its_exit_code() -> None:
    async with without_standard_error("run", "-nonsense") as process:
        assert await process.wait() == 64


async def test_a_datacenter_whose_log_nobody_reads_answers(tmp_path: Path) -> None:
    at = unused()
    words = ("-name", "dc1", "-data-dir", str(tmp_path), "-http-addr", at, "-enable-faults")
    process = await trio.lowlevel.open_process(
        command("datacenter", *words), env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        log = await lines_until(process.stderr, f"listening on {at}\n")
        narrow(process)
        for _ in range(CALLS):
            assert (await answer(at, NO_FAULTS)).startswith(b"HTTP/1.1 200 ")  # each is a line of the log
        process.terminate()
        log += b"".join([bytes(chunk) async for chunk in process.stderr]).decode()
        assert await process.wait() == 0
    finally:
        process.kill()
        await process.wait()
    assert log.count("faults of dc1") == CALLS
