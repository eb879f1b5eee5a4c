"""More callers than can be served at once: they wait for their turn, within bounds, and none is told no."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from agent.net.handshake import client_handshake
from tests.certs.authority import Issuer
from tests.support.agent_in_process import App, free_port
from tests.support.agent_process import command, environment, lines_until, sidecar
from tests.support.beside_consul import everything
from tests.support.fake_consul import FakeConsul
from tests.support.socket_pairs import contexts_of

CROWD = 1000
PLACES = 64
PAGE = os.sysconf("SC_PAGE_SIZE")
SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Server:
    """A sidecar of web that runs, its root, and what can be asked of it."""

    root: Issuer
    address: tuple[str, int]
    admin: str
    pid: int
    callers: list[socket.socket] = field(default_factory=list)
    context: SSL.Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = contexts_of(self.root.leaf(service="client"), self.root).client

    async def public(self) -> dict[str, Any]:
        """What status says of the public listener."""
        row = json.loads((await sidecar("status", "-json", "-admin-bind", self.admin)).out)["public"]
        assert isinstance(row, dict)
        return row

    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def dial(self, source: str = "127.0.0.1", first: bytes = b"") -> socket.socket:
        """A caller from that address, who says so much."""
        sock = socket.create_connection(self.address, timeout=SECONDS, source_address=(source, 0))
        sock.setblocking(False)
        sock.send(first)
        self.callers.append(sock)
        return sock

    async def served(self, sock: socket.socket, seconds: float = SECONDS) -> SSL.Connection:
        """Shake hands and have one word echoed, in that time."""
        with trio.fail_after(seconds):
            tls = await client_handshake(sock, self.context, "web", seconds)
            tls.send(b"hello")
            assert await heard(tls, sock) == b"hello"
            return tls


@asynccontextmanager
async def serving(nursery: trio.Nursery, *extra: str) -> AsyncIterator[Server]:
    consul, app = FakeConsul(), App()
    root = everything(consul)
    nursery.start_soon(app.serve)
    at = await consul.listen(nursery)
    public, admin = ("127.0.0.1", free_port()), f"127.0.0.1:{free_port()}"
    words = ["-sidecar-for", "web", "-listen", f"{public[0]}:{public[1]}", "-service-addr", app.address]
    words += ["-http-addr", at, "-admin-bind", admin]
    process = await trio.lowlevel.open_process(
        command("run", *words, *extra), env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        await lines_until(process.stderr, " ready: ")
        nursery.start_soon(_drink, process.stderr)
        server = Server(root=root, address=public, admin=admin, pid=process.pid)
        yield server
        for sock in server.callers:
            sock.close()
    finally:
        process.kill()
        await process.wait()
        app.sock.close()


async def heard(tls: SSL.Connection, sock: socket.socket) -> bytes:
    """The next word."""
    while True:
        with suppress(SSL.WantReadError):
            return tls.recv(100)
        await trio.lowlevel.wait_readable(sock)


async def _drink(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


async def until(server: Server, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Until that is so of the public listener."""
    with trio.fail_after(SECONDS):
        while not true(row := await server.public()):
            pass
        return row


def calm(row: dict[str, Any]) -> bool:
    """Whether no handshake is under way and nobody waits for one."""
    return not row["handshakes"] and not row["waiting"]


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    async with serving(nursery, "-max-handshakes", str(PLACES)) as made:
        yield made


async def test_callers_who_begin_and_stop_take_a_bounded_part(server: Server) -> None:
    held = server.dial()
    steady = await server.served(held)
    before = server.resident()
    stalled = [server.dial(first=b"\x16") for _ in range(CROWD)]
    row = await until(server, lambda row: bool(row["waiting"]))
    assert row["handshakes_most"] <= row["handshakes_limit"] == PLACES
    assert server.resident() - before < 16 << 20
    steady.send(b"still")  # who is in is served meanwhile
    assert await heard(steady, held) == b"still"
    for sock in stalled:
        sock.close()
    await until(server, calm)
    await server.served(server.dial())


async def test_all_of_a_burst_are_served_though_there_are_places_for_a_few(server: Server) -> None:
    callers = [server.dial() for _ in range(2 * PLACES)]
    async with trio.open_nursery() as nursery:
        for sock in callers:
            nursery.start_soon(server.served, sock)
    row = await until(server, calm)
    assert (row["live"], row["overflow"]) == (2 * PLACES, 0)
    assert row["handshakes_most"] <= PLACES
