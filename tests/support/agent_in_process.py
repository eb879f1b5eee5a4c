"""A whole agent in the test's own process: its life, its workload, and callers from the mesh."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import trio
from OpenSSL import SSL

from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.h2.faults import ErrorCode
from agent.h2.frames import LARGEST_WINDOW, PREFACE, Kind, frame, read_goaway
from agent.lifecycle import Lifecycle
from agent.net.inherited import InheritedSockets
from agent.net.kept import KeptSockets
from agent.net.listeners import ListenerKey
from agent.process.systemd import Inherited, Notifier
from agent.tunnel.sign import marked
from certs.bundle import parse_roots
from certs.contexts import build_contexts
from certs.credentials import prove
from certs.leaf import parse_leaf
from tests.certs.authority import Issuer, roots_answer
from tests.support.agent_parts import AgentBench, agent_bench, settings

SECONDS = 10.0


def wall() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Life:
    """A life under way."""

    bench: AgentBench
    cycle: Lifecycle
    code: ExitCode | None = None

    async def run(self) -> None:
        self.code = await self.cycle.run()

    async def until(self, true: Callable[[], object]) -> None:
        """Until it is so; what makes it so happens in other tasks and in the kernel."""
        with trio.fail_after(SECONDS):
            while not true():  # noqa: ASYNC110 - nothing to wait on
                await trio.sleep(0.01)

    async def ready(self) -> None:
        await self.until(lambda: self.bench.control.phase is Phase.SERVING)

    def address(self, key: ListenerKey = "public") -> tuple[str, int]:
        """Where a listener is bound."""
        opening = self.bench.data.reconciler.listeners.all()[key]
        host, port = opening.bound[0].sock.getsockname()
        return host, port


def keep_in(one: Life, kept: KeptSockets) -> None:
    """Give a life that has not begun the sockets that the service manager keeps."""
    one.cycle.kept = one.bench.data.reconciler.listeners.kept = kept


def life(nursery: trio.Nursery, *inherited: Inherited, **flags: str | list[str]) -> Life:
    """An agent that has not started; its admin port is any, its drain short."""
    told = settings(**{"admin_bind": "127.0.0.1:0", "drain_seconds": "5", "leave_seconds": "0", **flags})
    bench = agent_bench(nursery, told, wall, InheritedSockets((one.name, one.sock) for one in inherited))
    cycle = Lifecycle(agent=bench.agent, notifier=Notifier())
    return Life(bench, cycle)


def public_life(nursery: trio.Nursery, *inherited: Inherited, **flags: str | list[str]) -> Life:
    """One with a public listener on any port, wherever the registration has it."""
    return life(nursery, *inherited, **{"listen": "127.0.0.1:0", **flags})


async def live(life_: Life, act: Callable[[], Awaitable[None]]) -> None:
    """Run it, act while it is ready, and end it; what it raises is raised."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life_.run)
        await life_.ready()
        await act()
        life_.cycle.drain("the test")


class App:
    """The local workload: takes connections, says what it hears."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.accepted = 0

    async def serve(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.sock))
        await trio.serve_listeners(self._echo, [listener])

    async def _echo(self, stream: trio.SocketStream) -> None:
        self.accepted += 1
        with contextlib.suppress(trio.BrokenResourceError):  # cut from outside
            async for chunk in stream:
                await stream.send_all(chunk)


class Caller:
    """A peer in the mesh, over blocking sockets in a thread of trio's."""

    def __init__(self, root: Issuer, service: str = "client", clock: Callable[[], datetime] = wall) -> None:
        minted = root.leaf(service=service)
        leaf, bundle = parse_leaf(minted.cert_pem, minted.key_pem), parse_roots(roots_answer(root))
        proven = prove(leaf, bundle, service=service, datacenter="dc1", at=clock())
        self._context = build_contexts(proven, 1).client
        self.tls: SSL.Connection | None = None

    async def connect(self, address: tuple[str, int], server_name: str = "") -> None:
        await trio.to_thread.run_sync(self._connect, address, server_name)

    async def say(self, text: bytes) -> bytes:
        """What is echoed; empty when the connection was ended."""
        return await trio.to_thread.run_sync(self._say, text)

    def _connect(self, address: tuple[str, int], server_name: str) -> None:
        self._sock = socket.create_connection(address, timeout=SECONDS)
        self._sock.settimeout(None)
        self.tls = SSL.Connection(self._context, self._sock)
        self.tls.set_connect_state()
        if server_name:
            self.tls.set_tlsext_host_name(server_name.encode())
        try:
            self.tls.do_handshake()
        except SSL.Error:
            self._sock.close()
            raise

    async def open_tunnel(self, address: tuple[str, int]) -> None:
        """Connect as a tunnel that opens no stream yet, and read the far side's greeting."""
        await self.connect(address, marked("web"))
        assert self.tls is not None
        self.tls.send(PREFACE + frame(Kind.SETTINGS, 0, 0))
        await self.frame_of(Kind.SETTINGS)

    async def is_retired(self) -> bool:
        """Read on until GOAWAY; return whether it retires the tunnel or ends it (RFC 9113 §6.8)."""
        last, code, _ = read_goaway(await self.frame_of(Kind.GOAWAY))
        return (last, code) == (LARGEST_WINDOW, ErrorCode.NO_ERROR)

    async def frame_of(self, kind: Kind) -> bytes:
        """Read frames until one is of that kind; return its payload. Raises SSL.Error at an end before."""
        return await trio.to_thread.run_sync(self._frame_of, kind)

    def _frame_of(self, kind: Kind) -> bytes:
        while True:
            head = self._exactly(9)  # RFC 9113 §4.1
            payload = self._exactly(int.from_bytes(head[:3], "big"))
            if head[3] == kind:
                return payload

    def _exactly(self, count: int) -> bytes:
        assert self.tls is not None
        found = b""
        while len(found) < count:
            found += self.tls.recv(count - len(found))
        return found

    def _say(self, text: bytes) -> bytes:
        assert self.tls is not None
        try:
            self.tls.send(text)
            return self.tls.recv(100)
        except SSL.Error:
            return b""

    def close(self) -> None:
        assert self.tls is not None
        with contextlib.suppress(SSL.Error):
            self.tls.shutdown()
        self._sock.close()


def exit_of(caught: pytest.ExceptionInfo[BaseExceptionGroup[BaseException]]) -> Exit:
    """The one exit in the groups."""
    (exit_,) = _leaves(caught.value)
    assert isinstance(exit_, Exit)
    return exit_


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def upstream(name: str, port: int, **extra: object) -> dict[str, object]:
    return {"DestinationName": name, "LocalBindPort": port, **extra}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Return whether a connect to a port of the loopback address succeeds."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
