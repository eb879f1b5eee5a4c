"""A TLS leg that has gone leaves an error in OpenSSL's queue: no other connection may be told of it.

With cryptography 45 each connection that only had to wait for its next bytes would have ended by it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from OpenSSL import SSL, crypto

from agent.relay.relay import Relay
from agent.relay.splice import Ending, Progress
from agent.relay.streams import StreamBroken, TlsStream
from certs.contexts import Contexts
from tests.agent.outbound.test_warm_connection import Heard, warm
from tests.certs.authority import Issuer
from tests.support.relayed_pairs import Wire, relaying, wirings
from tests.support.socket_pairs import contexts_of

RESET = struct.pack("ii", 1, 0)


def errors() -> list[object]:
    """What is in the queue; asking takes it out."""
    with pytest.raises(crypto.Error) as caught:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    return list(caught.value.args[0])


def wait(wire: Wire) -> None:
    """It has nothing to read yet. The first time, OpenSSL still thinks of the handshake."""
    with pytest.raises(SSL.WantReadError):
        wire.tls.recv(1)


def leave(wire: Wire) -> None:
    wire.peer_sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wire.peer_sock.close()


async def a_write(wire: Wire) -> None:
    """The far side goes while our app's words are on their way."""
    with Relay() as relay:
        async with relaying(relay, wire) as transfers:
            await trio.testing.wait_all_tasks_blocked()
            wire.app.send(b"question")  # which wakes the relay first
            leave(wire)
    assert transfers[0].ending in {Ending.TLS_RESET, Ending.TLS_TRUNCATED}


async def an_end(wire: Wire) -> None:
    with Relay() as relay:
        async with relaying(relay, wire) as transfers:
            await trio.testing.wait_all_tasks_blocked()
            wire.app.shutdown(socket.SHUT_WR)
            leave(wire)
    assert transfers[0].ending is Ending.TLS_RESET


async def an_answer(wire: Wire) -> None:
    leave(wire)
    stream = TlsStream(wire.tls, wire.tls_sock, Progress())
    with pytest.raises(StreamBroken):
        await stream.send(b"answer")


async def an_end_of_answers(wire: Wire) -> None:
    leave(wire)
    with pytest.raises(StreamBroken):
        await TlsStream(wire.tls, wire.tls_sock, Progress()).send_end()


async def a_warm_one(wire: Wire) -> None:
    leave(wire)
    one = warm(Heard(), wire.tls_sock)
    one.tls = wire.tls
    one.close(in_order=True)
    await trio.lowlevel.checkpoint()


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    root = Issuer.root()
    return contexts_of(root.leaf(), root)


@pytest.mark.parametrize("broken", [a_write, an_end, an_answer, an_end_of_answers, a_warm_one])
async def test_what_it_leaves_behind_is_forgotten(
    contexts: Contexts, broken: Callable[[Wire], Awaitable[None]]
) -> None:
    async with wirings(contexts) as make:
        innocent, gone = await make(), await make()
        wait(innocent)
        await broken(gone)
        wait(innocent)
        assert errors() == []
        with Relay() as relay:
            async with relaying(relay, innocent) as transfers:
                innocent.app.send(b"question")
                assert await innocent.from_peer() == b"question"
                innocent.peer.shutdown()
                innocent.app.shutdown(socket.SHUT_WR)
        assert transfers[0].ending is Ending.CLEAN
