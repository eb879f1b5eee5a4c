"""Each way a handshake fails has its own name; deadlines run on the virtual clock."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from agent.net import handshake
from agent.net.handshake import (
    HandshakeFailed,
    HandshakeReason,
    client_handshake,
    server_handshake,
    verified_chain,
)
from agent.net.tls_records import MOST_RECORDS, PIECE
from certs.contexts import Contexts
from certs.peer import verify_peer
from certs.spiffe import ServiceId
from tests.certs.authority import Issuer, der
from tests.support.socket_pairs import NOW, bundle_of, contexts_of, tcp_pair

ROOT = Issuer.root()


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return contexts_of(ROOT.leaf(), ROOT)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = tcp_pair()
    with near, far:
        yield near, far


async def both(
    pair: tuple[socket.socket, socket.socket],
    client: SSL.Context,
    server: SSL.Context,
    name: str = "db.default.dc2.internal.test",
) -> tuple[SSL.Connection | HandshakeReason, SSL.Connection | HandshakeReason]:
    """A handshake over the pair; what became of each side."""
    outcome: dict[str, SSL.Connection | HandshakeReason] = {}

    async def call() -> None:
        try:
            outcome["client"] = await client_handshake(pair[0], client, name, 5)
        except HandshakeFailed as error:
            outcome["client"] = error.reason

    async def answer() -> None:
        try:
            outcome["server"] = await server_handshake(pair[1], lambda: server, 5)
        except HandshakeFailed as error:
            outcome["server"] = error.reason

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(answer)
    return outcome["client"], outcome["server"]


async def test_others_get_a_word_in_before_each_step(pair: tuple[socket.socket, socket.socket]) -> None:
    contexts = contexts_of(ROOT.leaf(service="db", datacenter="dc2"), ROOT)
    called: Counter[str] = Counter()

    async def ours() -> None:
        called.update(["client"])

    async def theirs() -> None:
        called.update(["server"])

    async def call() -> None:
        await client_handshake(pair[0], contexts.client, "db.test", 5, ours)

    async def answer() -> None:
        await server_handshake(pair[1], lambda: contexts.server, 5, theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(answer)
    assert called == {"client": 2, "server": 2}


async def test_both_sides_see_each_others_chain(pair: tuple[socket.socket, socket.socket]) -> None:
    signer = ROOT.intermediate()
    minted = signer.leaf(service="db", datacenter="dc2")
    contexts = contexts_of(minted, ROOT)
    client, server = await both(pair, contexts.client, contexts.server)
    assert isinstance(client, SSL.Connection)
    assert isinstance(server, SSL.Connection)
    assert server.get_servername() == b"db.default.dc2.internal.test"
    assert client.get_protocol_version_name() == "TLSv1.3"
    for side in (client, server):
        chain = verified_chain(side)
        assert chain == (*minted.chain_der, der(ROOT.certificate))  # leaf first, root last
        peer = verify_peer(chain, bundle_of(ROOT), NOW)
        assert isinstance(peer.id, ServiceId)
        assert str(peer.id).endswith("/ns/default/dc/dc2/svc/db")


async def test_a_peer_without_a_certificate_has_no_chain(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    anonymous = SSL.Context(SSL.TLS_CLIENT_METHOD)
    open_door = SSL.Context(SSL.TLS_SERVER_METHOD)
    leaf = contexts.credentials.leaf
    open_door.use_privatekey(leaf.key)
    open_door.use_certificate(leaf.certificate)
    _, server = await both(pair, anonymous, open_door)
    assert isinstance(server, SSL.Connection)
    assert verified_chain(server) == ()


@pytest.mark.parametrize("name", ["", "dü.default.dc2.internal.test", "d\0b", "d" * 300])
async def test_a_name_that_sni_cannot_say_is_not_said(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts, name: str
) -> None:
    _, server = await both(pair, contexts.client, contexts.server, name)
    assert isinstance(server, SSL.Connection)
    assert server.get_servername() is None


async def refused(sock: socket.socket, context: SSL.Context, *, client: bool = False) -> HandshakeFailed:
    attempt = (
        client_handshake(sock, context, "db.test", 3)
        if client
        else server_handshake(sock, lambda: context, 3)
    )
    with pytest.raises(HandshakeFailed) as caught:
        await attempt
    assert sock.fileno() != -1  # it stays the caller's
    assert str(caught.value) == f"{caught.value.reason.value}: {caught.value.detail}"
    return caught.value


async def test_silence_is_told_from_a_stall(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    assert (await refused(pair[1], contexts.server)).reason is HandshakeReason.SILENT
    assert trio.current_time() - began == 3
    pair[0].send(b"\x16\x03")
    assert (await refused(pair[1], contexts.server)).reason is HandshakeReason.STALLED
    assert trio.current_time() - began == 6


async def test_a_silent_server_is_told_from_one_that_stalls(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    assert (await refused(pair[1], contexts.client, client=True)).reason is HandshakeReason.SILENT

    async def begin_and_stop() -> None:
        await trio.testing.wait_all_tasks_blocked()
        pair[0].send(b"\x16\x03")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin_and_stop)
        assert (await refused(pair[1], contexts.client, client=True)).reason is HandshakeReason.STALLED


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_who_leaves_without_a_byte_was_no_caller(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts, how: str
) -> None:
    if how == "reset":
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair[0].close()
    assert (await refused(pair[1], contexts.server)).reason is HandshakeReason.PROBE


@pytest.mark.parametrize(
    ("how", "reason"), [("close", HandshakeReason.CLOSED), ("reset", HandshakeReason.RESET)]
)
async def test_who_leaves_in_the_middle(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts, how: str, reason: HandshakeReason
) -> None:
    pair[0].send(b"\x16\x03\x01")
    if how == "reset":
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair[0].close()
    # Which of the two the first look sees is the kernel's; a reset before it is a probe's.
    assert (await refused(pair[1], contexts.server)).reason in {reason, HandshakeReason.PROBE}


async def test_a_server_that_closes(pair: tuple[socket.socket, socket.socket], contexts: Contexts) -> None:
    pair[0].shutdown(socket.SHUT_WR)
    assert (await refused(pair[1], contexts.client, client=True)).reason is HandshakeReason.CLOSED


async def test_a_server_that_speaks_another_protocol(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    pair[0].send(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert (await refused(pair[1], contexts.client, client=True)).reason is HandshakeReason.NOT_TLS


async def test_no_cipher_in_common(pair: tuple[socket.socket, socket.socket], contexts: Contexts) -> None:
    old = SSL.Context(SSL.TLS_CLIENT_METHOD)
    old.set_max_proto_version(SSL.TLS1_2_VERSION)
    old.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA")
    assert await both(pair, old, contexts.server) == (HandshakeReason.PEER_REFUSED, HandshakeReason.PROTOCOL)


async def test_each_side_names_the_others_refusal(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    stranger = Issuer.root()
    unknown = contexts_of(stranger.leaf(), ROOT)  # trusts us, but is not trusted
    outcome = await both(pair, contexts.client, unknown.server)
    assert outcome == (HandshakeReason.UNTRUSTED_CHAIN, HandshakeReason.PEER_REFUSED)


async def test_an_answer_that_the_peer_does_not_take_yet_is_waited_for() -> None:
    """A chain of a hundred certificates is more than a small buffer holds."""
    chain = contexts_of(ROOT.leaf(), ROOT)
    for _ in range(100):
        chain.server.add_extra_chain_cert(chain.credentials.leaf.certificate)
    near, far = tcp_pair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with near, far:
        client, server = await both((near, far), chain.client, chain.server)
    assert isinstance(client, SSL.Connection)
    assert isinstance(server, SSL.Connection)


def client_hello(context: SSL.Context, size: int = 0) -> bytes:
    """The message, padded to about that size (RFC 7685), without its record."""
    client = SSL.Connection(context)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    message = client.bio_read(1 << 16)[5:]
    at = 4 + 2 + 32  # header, version, random; then session id, cipher suites, compression methods
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extensions = message[at + 2 :]
    if size:
        extensions += struct.pack("!HH", 21, size) + bytes(size)
    body = message[4:at] + len(extensions).to_bytes(2, "big") + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def in_records(message: bytes, size: int) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


async def test_a_hello_in_records_of_one_byte_is_read_in_pieces_and_up_to_a_bound(
    pair: tuple[socket.socket, socket.socket], contexts: Contexts
) -> None:
    wire = in_records(client_hello(contexts.client, 4000), 1)
    assert pair[0].send(wire) == len(wire)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        assert (await refused(pair[1], contexts.server)).reason is HandshakeReason.FRAGMENTED
        nursery.cancel_scope.cancel()
    assert turns >= MOST_RECORDS // PIECE - 2
    assert len(pair[1].recv(len(wire))) == len(wire) - 6 * MOST_RECORDS  # the rest was not looked at


@pytest.mark.parametrize("size", [16, 512, 1 << 14])
async def test_a_hello_in_a_few_records_is_answered(
    pair: tuple[socket.socket, socket.socket],
    contexts: Contexts,
    size: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    pair[0].send(in_records(client_hello(contexts.client), size))
    assert (await refused(pair[1], contexts.server)).reason is HandshakeReason.STALLED


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["peer did not return a certificate"], HandshakeReason.NO_CERTIFICATE),
        (["data length too long", "record layer failure"], HandshakeReason.MALFORMED),
        (["record layer failure", "tlsv1 alert unknown ca"], HandshakeReason.PEER_REFUSED),
        (["something OpenSSL 5 will say"], HandshakeReason.TLS_ERROR),
        ([], HandshakeReason.TLS_ERROR),
    ],
)
def test_openssls_words_and_our_names(texts: list[str], reason: HandshakeReason) -> None:
    failure = handshake._refused(SSL.Error([("SSL routines", "", text) for text in texts]))
    assert failure.reason is reason
    assert failure.detail == ("; ".join(texts) or "OpenSSL gave no reason")


def test_an_error_without_any_words() -> None:
    assert handshake._refused(SSL.Error()).reason is HandshakeReason.TLS_ERROR
    assert handshake._system(None)
