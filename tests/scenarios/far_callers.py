"""Callers who hold open connections to a mesh's sidecars: Python's own TLS, leaves of its datacenters."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from tests.rotation.mesh import Mesh, Sidecar, Site

LEAF = "/v1/agent/connect/ca/leaf"
AT_ONCE = 8  # handshakes
PATIENCE = 60.0


@dataclass(kw_only=True)
class Held:
    """One open connection: what has come back, and when the far side ended it."""

    source: str
    stream: trio.SSLStream[trio.SocketStream]
    heard: bytes = b""
    ended: float | None = None  # by trio's clock

    async def listen(self) -> None:
        """Until it ends."""
        try:
            while chunk := await self.stream.receive_some():
                self.heard += chunk
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            await trio.aclose_forcefully(self.stream)
        self.ended = trio.current_time()


@dataclass(kw_only=True)
class Callers:
    """All of them. What they hold ends with the nursery."""

    whole: Mesh
    directory: Path
    nursery: trio.Nursery
    held: list[Held] = field(default_factory=list)
    not_after: dict[str, float] = field(default_factory=dict)  # by source, of trio's clock

    async def call(
        self, source: str, count: int, *, site: Site | None = None, sidecar: Sidecar | None = None
    ) -> list[Held]:
        """Open connections, from dc1 to dc2 unless told otherwise, with a leaf fetched now."""
        context = await self._context(source, site or self.whole.dc1)
        port = (sidecar or self.whole.sidecars[1]).public
        limit = trio.CapacityLimiter(AT_ONCE)
        opened: list[Held] = []
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self._open, source, context, port, limit, opened)
        self.held += opened
        return opened

    def open(self, *sources: str) -> list[Held]:
        """Their connections that have not ended."""
        return [one for one in self.held if one.source in sources and one.ended is None]

    def live(self) -> Counter[str]:
        """How many of each source are open."""
        return Counter(one.source for one in self.held if one.ended is None)

    async def _open(
        self, source: str, context: ssl.SSLContext, port: int, limit: trio.CapacityLimiter, opened: list[Held]
    ) -> None:
        async with limit:
            plain = await trio.open_tcp_stream("127.0.0.1", port)
            stream = trio.SSLStream(plain, context, https_compatible=True)
            await stream.do_handshake()
            one = Held(source=source, stream=stream)
            opened.append(one)
            self.nursery.start_soon(one.listen)

    async def _context(self, source: str, site: Site) -> ssl.SSLContext:
        leaf = await site.ask("GET", f"{LEAF}/{source}")
        roots = (await site.roots())["Roots"]
        left = datetime.fromisoformat(leaf["ValidBefore"]) - datetime.now(UTC)
        self.not_after[source] = trio.current_time() + left.total_seconds()
        file = self.directory / f"{source}.pem"
        file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        # The default context of Python 3.13 refuses an issuer without a name, as Consul's intermediates are.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata="".join(root["RootCert"] for root in roots))
        context.check_hostname = False
        context.load_cert_chain(file)
        file.unlink()
        return context


async def served(held: Sequence[Held], words: bytes = b"hello") -> None:
    """Say the words on every one of them, and wait until they have come back on each."""
    assert held
    for one in held:
        one.heard = b""
        await one.stream.send_all(words)
    await until(lambda: all(one.heard == words for one in held))


async def refused(held: Sequence[Held]) -> None:
    """Wait until every one of them has been ended from the other side, unheard."""
    assert held
    await until(lambda: all(one.ended is not None for one in held))
    assert {one.heard for one in held} == {b""}


async def until(true: Callable[[], object]) -> None:
    """Wait for what other tasks bring about."""
    with trio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 - many tasks may bring it about
            await trio.sleep(0.005)


async def told(site: Site, path: str, true: Callable[[Any], object]) -> float:
    """When that datacenter's own copy came to satisfy that, by its answers to a watch. By trio's clock."""
    index = ""
    with trio.fail_after(PATIENCE):
        while True:
            url = f"http://127.0.0.1:{site.port}{path}{'&' if '?' in path else '?'}wait=30s{index}"
            body, index = await trio.to_thread.run_sync(_read, url)
            if true(body):
                return trio.current_time()


def _read(url: str) -> tuple[Any, str]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.loads(answer.read()), f"&index={answer.headers['X-Consul-Index']}"
