"""The assertions at the seam can fail: a task that touches what the relay holds gets Trespass."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from agent.relay.relay import Relay
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.seam import Seam, Trespass
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


@pytest.mark.parametrize(
    "touch",
    [
        lambda wire: wire.plain.send(b"x"),
        lambda wire: wire.plain.recv(1),
        lambda wire: wire.plain.shutdown(socket.SHUT_WR),
        lambda wire: wire.plain.close(),
        lambda wire: wire.tls.send(b"x"),
        lambda wire: wire.tls.recv(1),
        lambda wire: wire.tls.shutdown(),
        lambda wire: wire.tls_sock.close(),
    ],
)
async def test_a_trespass_is_told(wiring: Wiring, seam: Seam, touch: Callable[[Wire], object]) -> None:
    wire = await wiring()
    with Relay() as relay:
        async with relaying(relay, wire):
            await trio.testing.wait_all_tasks_blocked()
            assert {wire.plain.fileno(), wire.tls_sock.fileno()} <= seam.held.keys()
            with pytest.raises(Trespass, match="which the relay holds"):
                touch(wire)
            wire.peer_sock.close()
    assert not seam.held
    wire.plain.send(b"ours again")


async def test_a_wait_is_a_trespass_too(wiring: Wiring) -> None:
    wire = await wiring()
    with Relay() as relay:
        async with relaying(relay, wire):
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Trespass):
                await trio.lowlevel.wait_readable(wire.plain)
            wire.peer_sock.close()


async def test_nothing_is_handed_over_twice(wiring: Wiring) -> None:
    wire = await wiring()
    with Relay() as relay:
        async with relaying(relay, wire):
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Trespass, match="already"):
                await relay.run(wire.plain, wire.tls)
            wire.peer_sock.close()


async def test_a_cancelled_run_gives_back_what_it_held(wiring: Wiring, seam: Seam) -> None:
    wire = await wiring()
    before = seam.handed_over
    with Relay() as relay, trio.move_on_after(0.05):
        await relay.run(wire.plain, wire.tls)
    assert seam.handed_over == before + 1
    assert not seam.held
    wire.plain.send(b"ours again")
