"""OpenSSL gets a handshake's records one by one, and the socket afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio
import trio.testing
from OpenSSL import SSL
from OpenSSL._util import ffi
from OpenSSL._util import lib as openssl

from agent.net.tls_records import (
    HEADER,
    MOST_BYTES,
    MOST_RECORDS,
    MemoryConnection,
    PeerClosed,
    RecordReader,
    TooManyRecords,
)
from tests.certs.authority import Issuer
from tests.support.socket_pairs import contexts_of, tcp_pair

ROOT = Issuer.root()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = tcp_pair()
    with near, far:
        yield near, far


def record(body: bytes, kind: int = 22, major: int = 3) -> bytes:
    return bytes((kind, major, 1)) + len(body).to_bytes(2, "big") + body


async def test_each_record_is_read_by_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    sent = [record(b"one"), record(b""), record(b"three", kind=20)]
    near.send(b"".join(sent) + b"what comes after")
    reader = RecordReader(far)
    assert [await reader.next() for _ in sent] == sent
    assert reader.heard
    assert far.recv(100) == b"what comes after"


async def test_a_record_that_comes_in_pieces_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    reader = RecordReader(far)
    whole = record(b"slowly")

    async def trickle() -> None:
        for one in whole:
            await trio.testing.wait_all_tasks_blocked()
            near.send(bytes([one]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        assert await reader.next() == whole
    assert reader.waited


@pytest.mark.parametrize(
    "header",
    [
        b"SSH-2",
        b"\x18\x03\x01\x00\x01",
        b"\x16\x02\x00\x00\x01",
        b"\x16\x03\x01" + (MOST_BYTES + 1).to_bytes(2, "big"),
    ],
)
async def test_of_what_is_no_record_only_the_header_is_waited_for(
    pair: tuple[socket.socket, socket.socket], header: bytes
) -> None:
    near, far = pair
    near.send(header)
    assert await RecordReader(far).next() == header


async def test_a_peer_who_leaves_has_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.send(record(b"half")[:-1])
    near.close()
    with pytest.raises(PeerClosed):
        await RecordReader(far).next()


async def test_records_are_read_up_to_a_bound(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.send(record(b"x") * (MOST_RECORDS + 1))
    reader = RecordReader(far)
    for _ in range(MOST_RECORDS):
        await reader.next()
    with pytest.raises(TooManyRecords):
        await reader.next()
    assert far.recv(100) == record(b"x")  # and no further


def test_a_connection_over_memory_goes_on_over_a_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    contexts = contexts_of(ROOT.leaf(), ROOT)
    client, server = MemoryConnection(contexts.client), MemoryConnection(contexts.server)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            if said := end.said():
                other.bio_write(said)
    for end, sock in zip((client, server), pair, strict=True):
        end.attach(sock)
        assert end.fileno() == sock.fileno()
    client.send(b"over the socket")
    assert pair[1].recv(HEADER, socket.MSG_PEEK)[0] == 23
    assert server.recv(100) == b"over the socket"
    with pytest.raises(SSL.WantReadError):
        server.recv(100)


class WithoutMemory:
    """OpenSSL when it has no memory for a connection; the rest of it is as ever."""

    def SSL_new(self, _context: object) -> object:  # noqa: N802 - its name
        return ffi.NULL

    def __getattr__(self, name: str) -> object:
        return getattr(openssl, name)


def test_no_memory_for_a_connection_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    context = contexts_of(ROOT.leaf(), ROOT).client
    monkeypatch.setattr(SSL, "_lib", WithoutMemory())
    with pytest.raises(MemoryError):
        MemoryConnection(context)
