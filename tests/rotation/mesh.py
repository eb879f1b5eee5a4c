"""Two datacenters and two sidecars as processes, `web` in dc1 and `db` in dc2, each the other's upstream.

Between the datacenters lie two wires of the test's own: `to_dc1` carries what dc2 asks, `to_dc2` what dc1
asks. The apps echo; they live in the test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.contract.federation import free_port
from tests.rotation.wire import Wire

ROTATE = "/v1/connect/ca/rotate"
CONFIGURATION = "/v1/connect/ca/configuration"
ROOTS = "/v1/connect/ca/roots"
PATIENCE = 60.0
STATUS_SECONDS = 10.0  # for one answer of a sidecar; then it is asked again
TUNNELLED = ("-tunnel", "auto")  # what they register offers tunnels then


@dataclass(kw_only=True)
class Process:
    """A program and its log."""

    command: list[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)
            try:
                self.running.wait(10)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait()


@dataclass(kw_only=True)
class Site(Process):
    """One datacenter."""

    name: str
    port: int

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer; None when it is not a 200."""
        return await trio.to_thread.run_sync(_ask, method, f"http://127.0.0.1:{self.port}{path}", body)

    async def roots(self) -> dict[str, Any]:
        return dict(await self.ask("GET", ROOTS) or {"ActiveRootID": "", "Roots": []})

    async def active(self) -> str:
        return str((await self.roots())["ActiveRootID"])

    async def signing_key_id(self) -> str:
        """Whose key signs leaves here."""
        roots = await self.roots()
        return next((str(root["SigningKeyID"]) for root in roots["Roots"] if root["Active"]), "")


@dataclass(kw_only=True)
class Sidecar(Process):
    """One sidecar: the ports of its admin endpoint, of its public listener and of its upstream."""

    name: str
    site: Site
    admin: int
    public: int
    upstream: int

    async def status(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.admin}/status"
        return dict(await trio.to_thread.run_sync(_ask, "GET", url, None, STATUS_SECONDS) or {})

    async def endings(self) -> dict[str, dict[str, int]]:
        """How its connections and its attempts have ended so far: `inbound`, `outbound`, `attempts`."""
        counters = (await self.status())["counters"]
        return {**counters["endings"], "attempts": counters["attempts_failed"]}

    async def signer(self) -> str:
        """Whose key has signed the leaf in force."""
        return str(((await self.status()).get("credentials") or {}).get("signer", ""))

    async def follows(self) -> bool:
        """Whether its leaf is of the key its datacenter signs with now."""
        wanted = await self.site.signing_key_id()
        return wanted != "" and await self.signer() == wanted


@dataclass(kw_only=True)
class Mesh:
    """All of it."""

    directory: Path
    dc1: Site
    dc2: Site
    to_dc1: Wire
    to_dc2: Wire
    sidecars: list[Sidecar] = field(default_factory=list)

    async def agreed(self) -> bool:
        """Whether both datacenters sign under the same root."""
        return (await self.dc1.active()) == (await self.dc2.active()) != ""

    async def settled(self) -> bool:
        """The same, and both sidecars have followed."""
        return await self.agreed() and all([await sidecar.follows() for sidecar in self.sidecars])


async def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> float:
    """Wait until it holds; how long that took."""
    began = trio.current_time()
    with trio.move_on_after(seconds):
        while not await holds():  # noqa: ASYNC110 - another process; there is nothing to wait on
            await trio.sleep(0.05)
        return trio.current_time() - began
    raise AssertionError(f"{what}: not within {seconds:g} s")


@asynccontextmanager
async def mesh(
    directory: Path, *, leaf_ttl: str = "5m", jitter: str = "1s", flags: Sequence[str] = ()
) -> AsyncIterator[Mesh]:
    """Everything up and ready, with the apps echoing; ended by process id. `flags` are the sidecars'."""
    ports = {name: free_port() for name in ("dc1", "dc2")}
    async with trio.open_nursery() as nursery:
        to_dc1, to_dc2 = Wire(ports["dc1"]), Wire(ports["dc2"])
        await nursery.start(to_dc1.run)
        await nursery.start(to_dc2.run)
        life = ["-leaf-ttl", leaf_ttl, "-leaf-rotation-jitter", jitter]
        joins = ["-primary-datacenter", "dc1", "-primary-addr", f"http://127.0.0.1:{to_dc1.port}"]
        sites = [
            _site("dc1", ports["dc1"], directory, to_dc1, life),
            _site("dc2", ports["dc2"], directory, to_dc2, [*life, *joins]),
        ]
        whole = Mesh(directory=directory, dc1=sites[0], dc2=sites[1], to_dc1=to_dc1, to_dc2=to_dc2)
        processes: list[Process] = [*sites]
        try:
            for site in sites:
                site.start()
                await until(lambda site=site: site.ask("GET", "/v1/agent/self"), f"{site.name} answers")  # type: ignore[misc]
            await until(whole.agreed, "the datacenters agree")
            whole.sidecars = await _sidecars(whole, nursery, flags)
            processes += whole.sidecars
            for sidecar in whole.sidecars:
                sidecar.start()
            for sidecar in whole.sidecars:
                await _ready(sidecar)
            await _reachable(whole)
            yield whole
        finally:
            for process in reversed(processes):
                process.end()
        nursery.cancel_scope.cancel()


def _site(name: str, port: int, directory: Path, reached: Wire, flags: list[str]) -> Site:
    command = [sys.executable, "-m", "agent", "datacenter", "-name", name, *flags]
    command += ["-http-addr", f"127.0.0.1:{port}", "-data-dir", str(directory / name)]
    command += ["-advertise-addr", f"http://127.0.0.1:{reached.port}"]
    return Site(command=command, log=directory / f"{name}.log", name=name, port=port)


async def _sidecars(whole: Mesh, nursery: trio.Nursery, flags: Sequence[str]) -> list[Sidecar]:
    made = []
    pairs = (("web", whole.dc1, "db@dc2"), ("db", whole.dc2, "web@dc1"))
    for name, site, upstream in pairs:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        app = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        admin, public, dialled = free_port(), free_port(), free_port()
        command = [sys.executable, "-m", "agent", "run", "-service", name, "-register"]
        command += ["-listen", f"127.0.0.1:{public}", "-service-addr", f"127.0.0.1:{app}"]
        command += ["-upstream", f"{upstream}:{dialled}", "-http-addr", f"127.0.0.1:{site.port}"]
        command += ["-admin-bind", f"127.0.0.1:{admin}", "-drain-seconds", "1", "-leave-seconds", "0", *flags]
        log = whole.directory / f"{name}.log"
        started = Sidecar(
            command=command,
            log=log,
            name=name,
            site=site,
            admin=admin,
            public=public,
            upstream=dialled,
        )
        made.append(started)
    return made


async def echo(stream: trio.SocketStream) -> None:
    """The app of both."""
    try:
        async for chunk in stream:
            await stream.send_all(chunk)
    except trio.BrokenResourceError:
        pass  # the caller counts it


async def _ready(sidecar: Sidecar) -> None:
    async def is_ready() -> bool:
        return bool((await sidecar.status()).get("ready"))

    try:
        await until(is_ready, f"{sidecar.name} is ready")
    except AssertionError as error:
        error.add_note(sidecar.log.read_text()[-3000:])
        raise


async def _reachable(whole: Mesh) -> None:
    async def answers(sidecar: Sidecar) -> bool:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", sidecar.upstream) as stream:
                await stream.send_all(b"hello")
                return await stream.receive_some() == b"hello"
        except (OSError, trio.BrokenResourceError):
            return False

    for sidecar in whole.sidecars:
        await until(lambda one=sidecar: answers(one), f"the upstream of {sidecar.name} answers")  # type: ignore[misc]


def _ask(method: str, url: str, body: object, seconds: float = PATIENCE) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, method=method), timeout=seconds
        ) as answer:
            return json.loads(answer.read() or b"true")
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError):
        return None
