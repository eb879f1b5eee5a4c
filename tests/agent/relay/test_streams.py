"""The two legs as streams: whole sends, ends, breaks by name, and nothing lost to a cancellation."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel

from agent.net.handshake import client_handshake, server_handshake
from agent.relay.close import reset
from agent.relay.pump import COLLECT, RECORD
from agent.relay.splice import Ending, Progress
from agent.relay.streams import ByteStream, PlainStream, StreamBroken, TlsStream, pour
from tests.certs.authority import Issuer
from tests.support.socket_pairs import contexts_of, tcp_pair

Pair = tuple[ByteStream, ByteStream, tuple[socket.socket, socket.socket]]


@contextlib.asynccontextmanager
async def plain_pair() -> AsyncIterator[tuple[PlainStream, PlainStream]]:
    near, far = tcp_pair()
    with near, far:
        yield PlainStream(near, Progress()), PlainStream(far, Progress())


@contextlib.asynccontextmanager
async def tls_pair() -> AsyncIterator[tuple[TlsStream, TlsStream, socket.socket]]:
    """Caller and sidecar, and the caller's socket."""
    root = Issuer.root()
    contexts = contexts_of(root.leaf(), root)
    near, far = tcp_pair()
    with near, far:
        async with trio.open_nursery() as nursery:
            answered = []

            async def answer() -> None:
                answered.append(await server_handshake(far, lambda: contexts.server, 5))

            nursery.start_soon(answer)
            tls = await client_handshake(near, contexts.client, "db", 5)
        yield TlsStream(tls, near, Progress()), TlsStream(answered[0], far, Progress()), near


async def carried(sender: ByteStream, receiver: ByteStream, size: int) -> bytes:
    received = bytearray()

    async def receive() -> None:
        while len(received) < size:
            received.extend(await receiver.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await sender.send(bytes(range(256)) * (size // 256))
    return bytes(received)


SIZE = 8 << 20


async def test_more_than_the_kernel_takes_at_once_is_sent_whole() -> None:
    async with plain_pair() as (near, far):
        assert await carried(near, far, SIZE) == bytes(range(256)) * (SIZE // 256)
    async with tls_pair() as (caller, sidecar, _):
        assert await carried(caller, sidecar, SIZE) == bytes(range(256)) * (SIZE // 256)
        assert await carried(sidecar, caller, SIZE) == bytes(range(256)) * (SIZE // 256)


async def test_bytes_written_are_counted() -> None:
    near, far = tcp_pair()
    progress = Progress()
    with near, far:
        await PlainStream(near, progress).send(b"hello")
    assert (progress.to_plain, progress.to_tls) == (5, 0)


async def test_both_ways_at_once() -> None:
    async with tls_pair() as (caller, sidecar, _), trio.open_nursery() as nursery:
        nursery.start_soon(carried, caller, sidecar, SIZE)
        nursery.start_soon(carried, sidecar, caller, SIZE)


async def test_bytes_that_are_decrypted_already_are_received() -> None:
    async with tls_pair() as (caller, sidecar, _):
        await caller.send(b"ab")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert sidecar.connection.recv(1) == b"a"  # the record is decrypted, the socket is empty
        with trio.fail_after(2):
            assert await sidecar.receive() == b"b"


@pytest.mark.parametrize("size", [RECORD, 3 * RECORD, 5 * RECORD + 1, COLLECT, COLLECT + RECORD])
async def test_an_end_right_behind_full_records_is_not_missed(size: int) -> None:
    async with tls_pair() as (caller, sidecar, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended_by, caller, b"x" * size)
            with trio.fail_after(5):
                received = b""
                while data := await sidecar.receive():
                    received += data
                    await trio.testing.wait_all_tasks_blocked(0.01)
                assert await sidecar.receive() == b""
        assert received == b"x" * size


@pytest.mark.parametrize("size", [RECORD, 3 * RECORD])
async def test_a_break_right_behind_full_records_has_its_name(size: int) -> None:
    async with tls_pair() as (caller, sidecar, sock):
        await caller.send(b"x" * size)
        sock.shutdown(socket.SHUT_WR)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await sidecar.receive() == b"x" * size
        for _ in range(2):
            with trio.fail_after(5), pytest.raises(StreamBroken) as broken:
                await sidecar.receive()
            assert broken.value.ending is Ending.TLS_TRUNCATED


async def ended_by(caller: TlsStream, data: bytes) -> None:
    await caller.send(data)
    await caller.send_end()


@contextlib.asynccontextmanager
async def between() -> AsyncIterator[tuple[PlainStream, PlainStream, TlsStream, TlsStream]]:
    """App, our side of it, our side of the caller, caller."""
    async with plain_pair() as (app, ours), tls_pair() as (caller, sidecar, _):
        yield app, ours, sidecar, caller


async def test_pouring_moves_so_many_bytes_and_no_more() -> None:
    content = bytes(range(256)) * (SIZE // 256)
    received = bytearray()
    async with between() as (app, ours, sidecar, caller), trio.open_nursery() as nursery:
        nursery.start_soon(app.send, content + b"more")

        async def read_slowly() -> None:
            while len(received) < SIZE:
                received.extend(await caller.receive())
                await trio.lowlevel.checkpoint()

        nursery.start_soon(read_slowly)
        with trio.fail_after(30):
            assert await pour(ours, sidecar, SIZE) == 0
        assert await ours.receive() == b"more"
    assert received == content


async def test_two_that_pour_do_not_mix() -> None:
    async with between() as one, between() as two, trio.open_nursery() as nursery:
        for (app, ours, sidecar, caller), byte in ((one, b"1"), (two, b"2")):
            nursery.start_soon(app.send, byte * SIZE)
            nursery.start_soon(pour, ours, sidecar, SIZE)
            nursery.start_soon(only, caller, byte)


async def only(caller: TlsStream, byte: bytes) -> None:
    size = 0
    while size < SIZE:
        data = await caller.receive()
        assert data == byte * len(data)
        size += len(data)
        await trio.sleep(0.001)  # so that writing blocks


async def test_pouring_says_what_is_missing_and_names_breaks() -> None:
    async with between() as (app, ours, sidecar, caller):
        await app.send(b"half")
        app.sock.shutdown(socket.SHUT_WR)
        assert await pour(ours, sidecar, 10) == 6
        assert await caller.receive() == b"half"
    async with between() as (app, ours, sidecar, caller), trio.open_nursery() as nursery:
        nursery.start_soon(app.send, b"x" * SIZE)
        caller.connection.sock_shutdown(socket.SHUT_RDWR)
        with pytest.raises(StreamBroken) as broken:
            await pour(ours, sidecar, SIZE)
        assert broken.value.ending is not Ending.PLAIN_RESET
        nursery.cancel_scope.cancel()


async def test_an_end_is_no_bytes() -> None:
    async with plain_pair() as (near, far):
        far.sock.shutdown(socket.SHUT_WR)
        assert await near.receive() == b""
    async with tls_pair() as (caller, sidecar, _):
        await caller.send_end()
        for _ in range(2):
            with trio.fail_after(2):
                assert await sidecar.receive() == b""
        await sidecar.send(b"still")  # each way ends alone
        assert await caller.receive() == b"still"


async def test_breaks_have_names() -> None:
    async with plain_pair() as (near, far):
        reset(far.sock)
        with pytest.raises(StreamBroken) as broken:
            await near.receive()
        assert broken.value.ending is Ending.PLAIN_RESET
        with pytest.raises(StreamBroken):
            await near.send(b"x")
    async with tls_pair() as (_, sidecar, sock):
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(StreamBroken) as broken:
            await sidecar.receive()
        assert broken.value.ending is Ending.TLS_TRUNCATED
    async with tls_pair() as (_, sidecar, sock):
        reset(sock)
        with pytest.raises(StreamBroken) as broken:
            await sidecar.receive()
        assert broken.value.ending is Ending.TLS_RESET
        with pytest.raises(StreamBroken):
            await sidecar.send(b"x")
        with pytest.raises(StreamBroken):
            await sidecar.send_end()


async def test_a_cancelled_receive_has_taken_nothing() -> None:
    async with tls_pair() as (caller, sidecar, _):
        with trio.move_on_after(0.01):
            await sidecar.receive()
        await caller.send(b"x")
        assert await sidecar.receive() == b"x"
        await caller.send(b"y")
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.CancelScope() as scope:
            scope.cancel()
            await sidecar.receive()
        assert await sidecar.receive() == b"y"


async def test_quiet_means_nothing_has_come() -> None:
    async with plain_pair() as (near, far):
        assert near.quiet()
        await far.send(b"x")
        assert not near.quiet()
        assert await near.receive() == b"x"  # a look takes nothing
        reset(far.sock)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not near.quiet()


async def test_readable_within_a_time() -> None:
    async with plain_pair() as (near, far):
        assert not await near.readable_within(0.01)
        await far.send(b"x")
        assert await near.readable_within(5)


async def test_two_tasks_may_wait_for_one_readiness() -> None:
    async with tls_pair() as (caller, sidecar, _):
        got = []

        async def receive() -> None:
            got.append(await sidecar.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await caller.send(b"1")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await caller.send(b"2")
        assert got == [b"1", b"2"]
