"""TLS 1.3 key updates and TLS 1.2: messages of TLS's own neither stop the bytes nor keep the relay busy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from agent.relay.splice import Ending
from tests.certs.authority import pem
from tests.support import two_sidecars as halves
from tests.support.relayed_pairs import CountingRelay
from tests.support.two_sidecars import Mesh, echo, mesh

LINES = 20


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "Relay", CountingRelay)


class Openssl:
    """`openssl s_client` against db's public listener: a line is sent, `K` alone asks for a key update."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._printed = b""

    async def say(self, line: str) -> None:
        await self._stdin.send_all(f"{line}\n".encode())

    async def hears(self, words: str) -> None:
        with trio.fail_after(20):
            while words.encode() not in self._printed:
                data = await self._stdout.receive_some()
                assert data, self._printed.decode(errors="replace")
                self._printed += data
        self._printed = self._printed.partition(words.encode())[2]


@asynccontextmanager
async def s_client(m: Mesh, folder: Path, *options: str) -> AsyncIterator[Openssl]:
    minted = m.root.leaf()
    for name, text in (("leaf", minted.cert_pem), ("key", minted.key_pem), ("root", pem(m.root.certificate))):
        (folder / name).write_text(text)
    command = ["openssl", "s_client", "-connect", str(m.public), "-verify_return_error", *options]
    command += [*("-cert", str(folder / "leaf")), *("-key", str(folder / "key"))]
    command += ["-CAfile", str(folder / "root")]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with process.stdin, process.stdout:  # type: ignore[union-attr]
        try:
            yield Openssl(process)
        finally:
            process.kill()
            await process.wait()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
@pytest.mark.parametrize("update", ["K", "k"])  # the peer is asked to update too, or is not
async def test_key_updates(counting: None, tmp_path: Path, update: str) -> None:
    async with mesh(echo) as m, s_client(m, tmp_path, "-tls1_3") as peer:
        for number in range(LINES):
            await peer.say(f"line {number}")
            await peer.hears(f"line {number}")
            await peer.say(update)
            await peer.hears("KEYUPDATE")
        assert isinstance(m.relay, CountingRelay)
        await trio.testing.wait_all_tasks_blocked()
        before = m.relay.served
        await trio.sleep(0.05)
        await trio.testing.wait_all_tasks_blocked()
        assert m.relay.served - before <= 3
        assert before < 10 * LINES
        await peer.say("Q")
        assert (await m.db.finished()).reason is Ending.CLEAN


async def test_tls_1_2_half_closes_too() -> None:
    async with mesh(echo) as m:
        sock = m.raw()
        with sock:
            tls = SSL.Connection(_only_tls_1_2(m), sock)
            tls.set_connect_state()
            heard = b""
            said = False
            while True:
                try:
                    if not said:
                        said = bool(tls.send(b"hello"))
                        tls.shutdown()
                    heard += tls.recv(100)
                except SSL.WantReadError:
                    await trio.lowlevel.wait_readable(sock)
                except SSL.ZeroReturnError:
                    break
            assert heard == b"hello"
            assert tls.get_protocol_version_name() == "TLSv1.2"
        assert (await m.db.finished()).reason is Ending.CLEAN


def _only_tls_1_2(m: Mesh) -> SSL.Context:
    minted = m.root.leaf()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_privatekey(minted.key)
    context.use_certificate(minted.certificate)
    return context
