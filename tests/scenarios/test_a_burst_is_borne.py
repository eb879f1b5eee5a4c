"""More callers than can be served: so many are heard, the oldest first; the rest is told no at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
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
from tests.support.fake_consul import ScriptedConsul
from tests.support.socket_pairs import contexts_of

BURST = 3000
PLACES = 64
AT_ONCE = 500  # sockets of ours at a time; the burst comes in such waves
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

    async def public(self) -> dict[str, Any]:
        """What status says of the public listener."""
        row = json.loads((await sidecar("status", "-json", "-admin-bind", self.admin)).out)["public"]
        assert isinstance(row, dict)
        return row

    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def dial(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=SECONDS)
        sock.setblocking(False)
        self.callers.append(sock)
        return sock

    async def served(self, sock: socket.socket) -> SSL.Connection:
        """Shake hands and have one word echoed."""
        context = contexts_of(self.root.leaf(service="client"), self.root).client
        with trio.fail_after(SECONDS):
            tls = await client_handshake(sock, context, "web", SECONDS)
            tls.send(b"hello")
            assert await heard(tls, sock) == b"hello"
            return tls


@asynccontextmanager
async def serving(nursery: trio.Nursery) -> AsyncIterator[Server]:
    consul, app = ScriptedConsul(), App()
    root = everything(consul)
    nursery.start_soon(app.serve)
    at = await consul.listen(nursery)
    public, admin = ("127.0.0.1", free_port()), f"127.0.0.1:{free_port()}"
    words = ["-sidecar-for", "web", "-listen", f"{public[0]}:{public[1]}", "-service-addr", app.address]
    words += ["-http-addr", at, "-admin-bind", admin, "-max-handshakes", str(PLACES)]
    process = await trio.lowlevel.open_process(
        command("run", *words), env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        await lines_until(process.stderr, " ready ")
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


def is_refused(sock: socket.socket) -> bool:
    """Whether we were told no; a caller that has spoken is told by a reset."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def until_dealt_with(server: Server, count: int) -> dict[str, Any]:
    """Until so many callers were admitted or turned away."""
    with trio.fail_after(SECONDS):
        while True:
            row = await server.public()
            if row["admitted"] + row["overflow"] >= count:
                return row


async def until_settled(server: Server) -> None:
    """Until no handshake is under way."""
    with trio.fail_after(SECONDS):
        while (await server.public())["handshakes"]:
            pass


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    async with serving(nursery) as made:
        yield made


async def test_callers_who_begin_and_stop_take_a_bounded_part(server: Server) -> None:
    held = server.dial()
    steady = await server.served(held)
    before = server.resident()
    stalled: list[socket.socket] = []
    for wave in range(1, BURST // AT_ONCE + 1):
        new = [server.dial() for _ in range(AT_ONCE)]
        for sock in new:
            with suppress(OSError):  # told no already
                sock.send(b"\x16")
        await until_dealt_with(server, 1 + wave * AT_ONCE)
        for sock in new:
            if is_refused(sock):
                sock.close()
            else:
                stalled.append(sock)
    row = await server.public()
    assert row["handshakes_most"] == row["handshakes_limit"] == PLACES
    assert row["overflow_by_reason"] == {"max_connections": 0, "max_handshakes": BURST - len(stalled)}
    assert row["admitted"] == 1 + len(stalled)
    assert server.resident() - before < 16 << 20
    steady.send(b"still")  # who is in is served meanwhile
    assert await heard(steady, held) == b"still"
    for sock in stalled:
        sock.close()
    await until_settled(server)
    await server.served(server.dial())


async def test_the_oldest_are_served_and_the_newest_told_no(server: Server) -> None:
    callers = [server.dial() for _ in range(5 * PLACES)]
    row = await until_dealt_with(server, 5 * PLACES)
    assert (row["handshakes"], row["overflow"]) == (PLACES, 4 * PLACES)
    assert [is_refused(sock) for sock in callers] == [False] * PLACES + [True] * 4 * PLACES
    async with trio.open_nursery() as nursery:
        for sock in callers[:PLACES]:
            nursery.start_soon(server.served, sock)
    await server.served(server.dial())
    row = await server.public()
    assert (row["handshakes"], row["live"], row["overflow"]) == (0, PLACES + 1, 4 * PLACES)
