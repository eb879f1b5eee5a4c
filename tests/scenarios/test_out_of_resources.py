"""Out of descriptors an agent refuses by name; out of memory it serves on or ends, and does not linger."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL
from trio.testing import MockClock

from agent.net.dial import DialFailed, DialReason
from agent.outbound.reasons import OutboundReason
from tests.agent.test_running import running
from tests.scenarios.test_a_log_that_nobody_reads import addressed, answer, live
from tests.scenarios.test_the_next_candidate_is_tried import reset_with
from tests.support.agent_process import command, environment
from tests.support.beside_consul import everything, unused
from tests.support.fake_consul import FakeConsul
from tests.support.two_sidecars import echo, mesh
from tests.support.warm_upstream import story

MORE = 48  # descriptors above what an agent at rest has: of the limit an eighth is kept from callers
CALLERS = 120
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def consul(nursery: trio.Nursery) -> FakeConsul:
    return FakeConsul()


def limit_descriptors(pid: int) -> None:
    most = max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()) + 1 + MORE
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


def limit_memory(pid: int) -> None:
    """To what it has now and a megabyte."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (1 << 20)
    resource.prlimit(pid, resource.RLIMIT_AS, (most, most))


@pytest.mark.slow
async def test_callers_who_take_every_descriptor_leave_some_to_probes(
    consul: FakeConsul, nursery: trio.Nursery
) -> None:
    everything(consul)
    at, public, admin = await consul.listen(nursery), unused(), unused()
    words = ("-sidecar-for", "web", "-listen", public, "-http-addr", at, "-admin-bind", admin)
    async with running(*words) as sidecar:
        limit_descriptors(sidecar.process.pid)
        with ExitStack() as callers:
            for _ in range(CALLERS):
                callers.enter_context(socket.create_connection(addressed(public)))
            for _ in range(3):
                assert await live(admin)
                assert (await answer(admin, METRICS)).startswith(b"HTTP/1.1 200 ")
        assert (await answer(public, b"GET / HTTP/1.1\r\n\r\n")) == b""  # a caller is refused by name again
        assert await sidecar.end() == 0
    assert "Traceback" not in sidecar.log
    assert 1 <= sidecar.log.count("admission.exhausted") <= 3
    assert "reason=not_tls" in sidecar.log


@pytest.mark.slow
async def test_without_address_space_it_serves_on_or_ends(consul: FakeConsul, nursery: trio.Nursery) -> None:
    everything(consul)
    at, public, admin = await consul.listen(nursery), unused(), unused()
    words = ("-sidecar-for", "web", "-listen", public, "-http-addr", at, "-admin-bind", admin)
    async with running(*words) as sidecar:
        limit_memory(sidecar.process.pid)
        hello = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        hello.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            hello.do_handshake()
        said = hello.bio_read(1 << 16)
        with ExitStack() as callers:
            for _ in range(CALLERS):
                try:
                    caller = callers.enter_context(socket.create_connection(addressed(public), timeout=5))
                    caller.send(said)
                except OSError:  # it has ended
                    break
            with trio.move_on_after(10):
                await sidecar.process.wait()
        if await lives_on(sidecar.process, admin):
            await sidecar.end()
    assert sidecar.process.returncode is not None
    assert sidecar.process.returncode >= 0, signal.Signals(-sidecar.process.returncode)


async def lives_on(process: trio.Process, admin: str) -> bool:
    """Whether it answers again, rather than ends, with its callers gone: on its way out it does neither."""
    with trio.fail_after(30):
        while process.returncode is None:
            try:
                return await live(admin)
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.05)
    return False


@pytest.mark.slow
async def test_started_with_a_full_pipe_for_standard_error_it_serves(
    consul: FakeConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at, admin = await consul.listen(nursery), unused()
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, "-admin-bind", admin)
    reader, writer = os.pipe()  # which nobody reads
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    process = await trio.lowlevel.open_process(
        command("run", *words), env=environment(), stdin=subprocess.DEVNULL, stderr=writer
    )
    os.close(writer)
    try:
        assert await becomes_live(admin)
        process.terminate()
        with trio.fail_after(20):
            assert await process.wait() == 0
    finally:
        os.close(reader)
        process.kill()
        await process.wait()


async def becomes_live(admin: str) -> bool:
    with trio.fail_after(20):
        while True:
            try:
                return await live(admin)
            except OSError:  # it does not listen yet
                await trio.sleep(0.05)


@pytest.mark.parametrize("fault", [SSL.Error([("SSL routines", "", "malloc failure")]), MemoryError()])
async def test_want_of_memory_in_a_handshake_is_held_against_no_endpoint(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(_self: object) -> None:
        raise fault

    async with mesh(echo) as m:
        monkeypatch.setattr("agent.net.tls_records.MemoryConnection.do_handshake", without_memory)
        await reset_with(m, OutboundReason.ALL_FAILED)
        assert [attempt.reason for attempt in m.web.events.attempts] == ["out_of_resources"]
        assert m.told.ejections == []


async def test_a_shortage_of_our_own_ejects_no_endpoint(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        told.fault = DialFailed(DialReason.NO_RESOURCES, "Too many open files")
        await trio.sleep(600)
        assert told.targets.warm_book.failed["out_of_resources"] > 2
        assert told.targets.failures.ejected() == {}
        told.fault = None
        await told.filled()
