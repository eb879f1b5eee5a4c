"""A reset or a truncation on one side is never an orderly end on the other."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from agent.outbound.reasons import OutboundReason
from agent.relay.splice import Ending
from tests.support.other_callee import in_place_of_db
from tests.support.two_sidecars import mesh, receive_all

RESET = struct.pack("ii", 1, 0)


def abort(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


async def broken(stream: trio.SocketStream) -> None:
    """The stream ends in a reset, whatever comes before."""
    with pytest.raises(trio.BrokenResourceError) as caught:
        await receive_all(stream)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_the_client_resets() -> None:
    ended = trio.Event()

    async def app(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        await broken(stream)
        ended.set()

    async with mesh(app) as m:
        client = await m.connect()
        assert await client.receive_some() == b"hello"
        abort(client)
        await ended.wait()
        await m.quiet()
        assert m.web.ledger.recent()[-1].reason is Ending.PLAIN_RESET
        assert m.db.ledger.recent()[-1].reason in {Ending.TLS_TRUNCATED, Ending.TLS_RESET}


async def test_the_app_resets() -> None:
    async def app(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half an ans")
        assert await stream.receive_some() == b"seen"
        abort(stream)

    async with mesh(app) as m:
        client = await m.connect()
        async with client:
            assert await client.receive_some() == b"half an ans"
            await client.send_all(b"seen")
            await broken(client)
        await m.quiet()
        assert m.db.ledger.recent()[-1].reason is Ending.PLAIN_RESET
        assert m.web.ledger.recent()[-1].reason in {Ending.TLS_TRUNCATED, Ending.TLS_RESET}


async def test_what_the_app_said_before_its_reset_still_arrives() -> None:
    """An HTTP server which answers early and closes on an unread request body: its answer counts."""

    async def app(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"413 Content Too Large")
        await client_saw_it.wait()
        # Closing with unread bytes makes the kernel send a reset.

    client_saw_it = trio.Event()
    async with mesh(app) as m:
        client = await m.connect()
        async with client:
            await client.send_all(b"x" * 4096)
            assert await client.receive_some() == b"413 Content Too Large"
            client_saw_it.set()
            await broken(client)


async def test_tcp_ends_without_close_notify_from_the_server_side() -> None:
    """The far sidecar dies: its kernel ends the TCP stream, and nobody wrote a close_notify."""
    async with mesh(receive_nothing) as m, in_place_of_db(m) as answer:
        client = await m.connect()
        async with client:
            sock, tls = await answer()
            tls.send(b"half an ans")
            assert await client.receive_some() == b"half an ans"
            sock.close()
            await broken(client)
        ended = await m.web.finished()
        assert ended.reason is Ending.TLS_TRUNCATED
        assert ended.to_plain == len(b"half an ans")


async def test_tcp_ends_without_close_notify_from_the_caller() -> None:
    ended = trio.Event()

    async def app(stream: trio.SocketStream) -> None:
        await broken(stream)
        ended.set()

    async with mesh(app) as m:
        assert m.web.contexts.value is not None
        sock, tls = await m.call(m.web.contexts.value.client)
        tls.send(b"half a quest")
        sock.close()
        await ended.wait()
        assert (await m.db.finished()).reason is Ending.TLS_TRUNCATED


async def test_bytes_that_are_not_tls_in_mid_stream() -> None:
    ended = trio.Event()

    async def app(stream: trio.SocketStream) -> None:
        await broken(stream)
        ended.set()

    async with mesh(app) as m:
        assert m.web.contexts.value is not None
        sock, _tls = await m.call(m.web.contexts.value.client)
        with sock:
            sock.send(b"GET / HTTP/1.1\r\n\r\n")
            await ended.wait()
            finished = await m.db.finished()
        assert finished.reason is Ending.TLS_FAILED
        assert finished.detail


async def test_a_refusal_as_the_first_read_is_no_break_but_a_refusal() -> None:
    """TLS 1.3: our handshake is over before the far side has looked at our certificate."""
    async with mesh(receive_nothing) as m, in_place_of_db(m) as answer:
        client = await m.connect()
        async with client:
            await client.send_all(b"question")
            sock, _tls = await answer()
            sock.close()
            await broken(client)
        ended = await m.web.finished()
        assert ended.reason is OutboundReason.REFUSED_BY_PEER
        assert ended.to_plain == 0


async def receive_nothing(stream: trio.SocketStream) -> None:
    raise AssertionError("the app must not be reached")
