"""Random traffic through the relay and the kernel."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from random import Random

import pytest
import trio
from OpenSSL import SSL

from agent.relay.relay import Relay
from agent.relay.splice import Ending
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.relayed_pairs import Wire, Wiring, relaying, wirings
from tests.support.socket_pairs import contexts_of


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    root = Issuer.root()
    return contexts_of(root.leaf(), root)


@pytest.fixture
async def wiring(contexts: Contexts) -> AsyncIterator[Wiring]:
    async with wirings(contexts) as make:
        yield make


@pytest.mark.parametrize("seed", range(12))
async def test_random_traffic_through_the_kernel(wiring: Wiring, seed: int) -> None:
    """Random chunks, pauses, small kernel buffers and half-closes: both sides get all, in order."""
    rng = Random(seed)
    wire = await wiring(unix=seed % 3 == 0)
    for sock in (wire.app, wire.plain, wire.tls_sock, wire.peer_sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, rng.choice([4608, 65536, 1 << 20]))
    words = {name: rng.randbytes(rng.randrange(1, 600_000)) for name in ("app", "peer")}
    heard = {"app": bytearray(), "peer": bytearray()}
    with Relay() as relay:
        async with relaying(relay, wire) as transfers, trio.open_nursery() as nursery:
            nursery.start_soon(app_talks, wire, words["app"], Random(seed + 1))
            nursery.start_soon(partial(app_hears, wire, heard["app"], Random(seed + 2)))
            nursery.start_soon(peer_talks_and_hears, wire, words["peer"], heard["peer"], Random(seed + 3))
    assert heard == {"app": words["peer"], "peer": words["app"]}
    assert transfers[0].ending is Ending.CLEAN


async def app_talks(wire: Wire, words: bytes, rng: Random) -> None:
    while words:
        chunk = words[: rng.choice([1, 100, 5000, 70_000])]
        try:
            words = words[wire.app.send(chunk) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(wire.app)
        await pause(rng)
    wire.app.shutdown(socket.SHUT_WR)


async def app_hears(wire: Wire, heard: bytearray, rng: Random) -> None:
    while data := await wire.from_app(rng.choice([10, 5000, 100_000])):
        heard += data
        await pause(rng)


async def peer_talks_and_hears(wire: Wire, words: bytes, heard: bytearray, rng: Random) -> None:
    """One task, since a TLS connection is for one at a time."""
    said = told_end = heard_end = False
    pending = b""
    while not (told_end and heard_end):
        progress = False
        if not said:
            pending = pending or words[: rng.choice([1, 100, 5000, 70_000])]
            try:
                sent = wire.peer.send(pending)
                words, pending, progress = words[sent:], b"", True
                said = not words
            except SSL.WantWriteError:
                pass
        elif not told_end:
            with suppress(SSL.WantWriteError):
                wire.peer.shutdown()
                told_end = progress = True
        if not heard_end:
            try:
                heard += wire.peer.recv(rng.choice([10, 5000, 100_000]))
                progress = True
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                heard_end = True
        if progress:
            await pause(rng)
        elif not (told_end and heard_end):
            await trio.sleep(0.0005)


async def pause(rng: Random) -> None:
    if rng.random() < 0.05:
        await trio.sleep(rng.random() / 1000)
    elif rng.random() < 0.3:
        await trio.lowlevel.checkpoint()
