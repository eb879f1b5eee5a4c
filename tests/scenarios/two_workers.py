"""A sidecar of web with two workers, as processes, and who calls it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from OpenSSL import SSL

from agent.net.handshake import client_handshake
from tests.certs.authority import Issuer
from tests.support.agent_in_process import App, free_port
from tests.support.agent_process import command, environment, lines_until, sidecar
from tests.support.beside_consul import everything
from tests.support.fake_consul import FakeConsul
from tests.support.socket_pairs import contexts_of

SECONDS = 60.0


@dataclass(slots=True)
class Held:
    """A connection through the sidecar to the app."""

    sock: socket.socket
    tls: SSL.Connection

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    async def say(self, word: bytes = b"hello") -> bytes:
        """What is echoed; empty when the connection has been ended."""
        try:
            self.tls.send(word)
            while True:
                try:
                    return self.tls.recv(100)
                except SSL.WantReadError:
                    await trio.lowlevel.wait_readable(self.sock)
        except SSL.Error:
            return b""


@dataclass(slots=True, kw_only=True)
class Agent:
    """A sidecar of web with two workers."""

    consul: FakeConsul
    root: Issuer
    address: tuple[str, int]
    admin: str
    process: trio.Process
    log: list[str] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    async def status(self) -> dict[str, Any]:
        told = json.loads((await sidecar("status", "-json", "-admin-bind", self.admin)).out)
        assert isinstance(told, dict)
        return told

    async def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Its status once that is so."""
        with trio.fail_after(SECONDS):
            while not true(told := await self.status()):
                pass
        return told

    async def call(self) -> Held:
        """One more connection, which is served."""
        sock = socket.create_connection(self.address, timeout=SECONDS)
        sock.setblocking(False)
        context = contexts_of(self.root.leaf(service="client"), self.root).client
        held = Held(sock, await client_handshake(sock, context, "web", SECONDS))
        self.held.append(held)
        assert await held.say() == b"hello"
        return held

    async def in_both(self) -> dict[int, list[Held]]:
        """Connections, at least two in each worker: the kernel decides which gets one."""
        while True:
            await self.call()
            by_worker: dict[int, list[Held]] = {0: [], 1: []}
            ports = {held.port: held for held in self.held}
            for row in (await self.status())["connections"]:
                by_worker[row["worker"]].append(ports[int(row["caller"].rpartition(":")[2])])
            if all(len(held) >= 2 for held in by_worker.values()):
                return by_worker

    async def drink(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log.append(chunk.decode())


@asynccontextmanager
async def running(nursery: trio.Nursery, *more: str) -> AsyncIterator[Agent]:
    consul, app = FakeConsul(), App()
    root = everything(consul)
    nursery.start_soon(app.serve)
    at = await consul.listen(nursery)
    public, admin = ("127.0.0.1", free_port()), f"127.0.0.1:{free_port()}"
    words = ["-sidecar-for", "web", "-listen", f"{public[0]}:{public[1]}", "-service-addr", app.address]
    words += ["-http-addr", at, "-admin-bind", admin, "-workers", "2", *more]
    process = await trio.lowlevel.open_process(
        command("run", *words),
        env=environment({"CONSUL_HTTP_TOKEN": "s3cret-token"}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    agent = Agent(consul=consul, root=root, address=public, admin=admin, process=process)
    try:
        assert process.stderr is not None
        agent.log.append(await lines_until(process.stderr, " ready: "))
        nursery.start_soon(agent.drink)
        yield agent
    finally:
        for held in agent.held:
            held.sock.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
        app.sock.close()
