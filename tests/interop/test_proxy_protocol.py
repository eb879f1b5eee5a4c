"""The PROXY protocol header as readers that are not ours take it: HAProxy and Envoy in the app's place."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from agent.base.address import TcpAddress
from agent.policy.http_mode import HttpMode
from tests.certs.authority import TRUST_DOMAIN
from tests.interop.envoy import introduced
from tests.support.two_sidecars import Mesh, echo, mesh, until

HAPROXY = shutil.which("haproxy")
SECONDS = 20.0
CALLER = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
ASK = b"GET / HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n"
TOLD = "told %[src]:%[src_port] %[dst]:%[dst_port]."
CONFIG = """
defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend in
  bind fd@{fd} accept-proxy
  http-request return status 200 content-type text/plain lf-string "{told}"
"""

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="no haproxy on PATH")


@contextmanager
def haproxy(directory: Path) -> Iterator[TcpAddress]:
    """An app behind HAProxy that answers with the addresses it was told."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        settings = directory / "haproxy.cfg"
        settings.write_text(CONFIG.format(fd=sock.fileno(), told=TOLD))
        process = subprocess.Popen([HAPROXY, "-db", "-f", str(settings)], pass_fds=[sock.fileno()])
        try:
            yield TcpAddress(*sock.getsockname())
        finally:
            process.terminate()
            process.wait(timeout=10)


async def ask(m: Mesh, text: bytes) -> bytes:
    """As web's app: what is answered, to the end."""
    answer = b""
    with trio.fail_after(SECONDS):
        async with await m.connect() as client:
            await client.send_all(text)
            try:
                async for data in client:
                    answer += data
            except trio.BrokenResourceError:
                pass  # what was answered is judged by the test
    return answer


@needs_haproxy
@pytest.mark.parametrize("http", [HttpMode.NEVER, HttpMode.ALWAYS])
async def test_haproxy_takes_the_header_and_its_addresses(tmp_path: Path, http: HttpMode) -> None:
    with haproxy(tmp_path) as app:
        async with mesh(echo, http=http) as m:
            m.app.address, m.proxy_protocol = app, True
            answer = await ask(m, ASK)
            caller = (await m.db.finished()).caller
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert f"told {caller} {m.public}.".encode() in answer


@needs_haproxy
async def test_haproxy_wants_it(tmp_path: Path) -> None:
    """What the other test shows is not that any connection will do."""
    with haproxy(tmp_path) as app:
        async with mesh(echo) as m:
            m.app.address = app
            assert b"told" not in await ask(m, ASK)


@pytest.mark.envoy
@pytest.mark.usefixtures("envoy_binary")
async def test_envoy_finds_the_caller_s_identity(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with introduced(tmp_path / "envoy", log) as envoy:
        async with mesh(echo) as m:
            m.app.address, m.proxy_protocol = TcpAddress("127.0.0.1", envoy.port), True
            async with await m.connect() as client:
                await client.send_all(b"hello")
                assert await client.receive_some() == b"hello"
            caller = (await m.db.finished()).caller
            with trio.fail_after(SECONDS):
                await until(lambda: log.exists() and log.read_text().endswith("\n"))
    assert log.read_text() == f"{caller} {CALLER}\n"
