"""HTTP whose requests are judged, and connections whose dial waits, as streams of a tunnel."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h11
import pytest
import trio

from agent.base.address import TcpAddress
from agent.connections.connection import Handling
from agent.connections.records import CloseReason
from agent.inbound.front import Front
from agent.net.dial import Begun
from agent.policy.http_mode import HttpMode
from agent.relay.splice import Progress
from agent.tunnel.byte_stream import TunnelStream
from tests.scenarios.test_tunnels import called, connect, ended, tunnelling
from tests.support.exchanges import watched_exchanges
from tests.support.faults import Faults
from tests.support.two_sidecars import Mesh, until


async def http_app(stream: trio.SocketStream) -> None:
    """Answer each request with its target and its caller's identity; switch to an echo when asked to."""
    connection = h11.Connection(h11.SERVER)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            headers = dict(event.headers)
            if b"upgrade" in headers:
                await stream.send_all(
                    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello "
                )
                while data := await stream.receive_some(65536):
                    await stream.send_all(data.upper())
                return
            body = event.target + b" for " + headers[b"x-forwarded-client-cert"].rpartition(b"/")[2]
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        else:
            return


class LaterCalls:
    """The end of a relay's turn."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def after_turn(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def run(self) -> None:
        for call in self.due:
            call()


class Consuming:
    """A tunnel, as far as a stream needs one to take what has come."""

    def __init__(self) -> None:
        self.fed: list[TunnelStream] = []
        self.h2, self.stream = self, None

    def consumed(self, stream: object, size: int) -> None:
        """Nothing is counted."""

    def wake(self) -> None:
        """Nothing is sent."""

    def deliver(self) -> None:
        for stream in self.fed:
            stream.deliver()


@asynccontextmanager
async def judged() -> AsyncIterator[Mesh]:
    async with tunnelling(handler=http_app, http=HttpMode.ALWAYS) as m:
        yield m


async def answer(stream: trio.SocketStream, size: int) -> bytes:
    got = b""
    with trio.fail_after(5):
        while len(got) < size and (data := await stream.receive_some(65536)):
            got += data
    return got


async def test_each_request_of_a_stream_is_judged_and_carries_its_caller() -> None:
    async with judged() as m:
        stream = await connect(m)
        for target in (b"/one", b"/two"):
            await stream.send_all(b"GET " + target + b" HTTP/1.1\r\nHost: db\r\n\r\n")
            got = await answer(stream, 1)
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            assert target + b" for web" in got
        assert m.db.ledger.live()[0].handling is Handling.BY_REQUEST
        assert len(m.db.ledger.tunnels()) == 1
        assert sum(m.db.ledger.requests().values()) == 2
        await stream.aclose()
        await m.quiet()
        assert {reason for _, reason in m.db.ledger.counters()} == {"clean"}


async def test_all_but_the_first_request_of_a_stream_take_no_exchange_of_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchanges = watched_exchanges(monkeypatch)
    async with judged() as m:
        first, second = await connect(m), await connect(m)
        for number in range(5):
            for stream in (first, second):
                await stream.send_all(b"GET /%d HTTP/1.1\r\nHost: db\r\n\r\n" % number)
                assert b"/%d for web" % number in await answer(stream, 1)
        assert len(exchanges) == 2
        assert len(m.db.ledger.tunnels()) == 1
        await first.aclose()
        await second.send_all(b"GET /again HTTP/1.1\r\nHost: db\r\n\r\n")
        assert b"/again for web" in await answer(second, 1)
        await second.aclose()
        await m.quiet()
        assert {reason for _, reason in m.db.ledger.counters()} == {"clean"}


async def test_bodies_of_a_stream_reach_the_app_whole_and_take_no_exchange_of_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchanges = watched_exchanges(monkeypatch)
    heard: list[bytes] = []

    async def app(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += await stream.receive_some(65536)
        heard.append(body)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with tunnelling(handler=app, http=HttpMode.ALWAYS) as m:
        stream = await connect(m)
        bodies = [bytes(range(256)) * times for times in (1, 16, 256, 2048)]
        for number, body in enumerate(bodies):
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: db\r\nContent-Length: %d\r\n\r\n" % len(body))
            await stream.send_all(body)
            assert await answer(stream, 40) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", number
        assert heard == bodies
        assert len(exchanges) < len(bodies)  # the first, and what the app's socket did not take at once
        assert m.app.accepts == len(bodies)


async def test_what_came_to_a_stream_while_nothing_watched_it_is_told_once_it_is_watched() -> None:
    told: list[bytes | None] = []
    relay, tunnel = LaterCalls(), Consuming()
    stream = TunnelStream(tunnel, tunnel.stream, Progress())  # type: ignore[arg-type]  # what it uses of one

    def on_ready(_events: int) -> None:
        told.append(stream.receive_nowait())

    stream.watch(relay, on_ready, pytest.fail)  # type: ignore[arg-type]  # likewise
    stream.unwatch()
    stream.on_data(b"GET")
    tunnel.deliver()
    assert told == []
    stream.watch(relay, on_ready, pytest.fail)  # type: ignore[arg-type]  # likewise
    relay.run()
    assert told == [b"GET"]
    stream.on_data(b" /")
    tunnel.deliver()
    assert told == [b"GET", b" /"]


@pytest.mark.parametrize("tunnel_ends", [True, False])
async def test_a_stream_that_breaks_off_during_an_exchange_is_over(tunnel_ends: bool) -> None:
    async def never(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(65536):
            if b"/last" in data:
                await trio.sleep_forever()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with tunnelling(handler=never, http=HttpMode.ALWAYS) as m:
        stream = await connect(m)
        for _ in range(2):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
            assert (await answer(stream, 1)).endswith(b"ok")
        await stream.send_all(b"GET /last HTTP/1.1\r\nHost: db\r\n\r\n")
        await until(lambda: m.db.ledger.live()[0].request is not None)
        if tunnel_ends:
            m.web.ledger.close_tunnels(CloseReason.SHUTDOWN)
        else:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        with trio.fail_after(5):
            await until(lambda: not m.db.ledger.live())
        assert m.db.ledger.recent()[-1].reason.value != "clean"


async def test_a_bug_in_a_step_ends_its_stream_and_not_the_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Front, received: bytes) -> None:
        raise ZeroDivisionError

    async with judged() as m:
        stream, other = await connect(m), await connect(m)
        for one in (stream, other):
            await one.send_all(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
            assert b"/ for web" in await answer(one, 1)
        faults = Faults()
        with monkeypatch.context() as patch:
            patch.setattr(Front, "request", fail)
            patch.setattr(m.db.events, "internal_error", faults.internal_error)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
            await ended(stream)
        await other.send_all(b"GET /on HTTP/1.1\r\nHost: db\r\n\r\n")
        assert b"/on for web" in await answer(other, 1)
        assert len(m.db.ledger.tunnels()) == 1
        assert [type(error) for _, _, error in faults.told] == [ZeroDivisionError]


async def test_a_refused_request_is_answered_in_its_stream() -> None:
    async with judged() as m:
        stream = await connect(m)
        await stream.send_all(b"GET /%2e%2e/x HTTP/1.1\r\nHost: db\r\nBad Name: x\r\n\r\n")
        assert (await answer(stream, 12)).startswith(b"HTTP/1.1 400")


async def test_a_stream_is_relayed_once_its_app_has_agreed_to_an_upgrade() -> None:
    async with judged() as m:
        stream = await connect(m)
        await stream.send_all(
            b"GET /ws HTTP/1.1\r\nHost: db\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        got = b""
        while not got.endswith(b"hello "):
            got += await answer(stream, 1)
        assert got.startswith(b"HTTP/1.1 101")
        await stream.send_all(b"abc" * 100_000)
        assert await answer(stream, 300_000) == b"ABC" * 100_000
        await stream.send_eof()
        assert await answer(stream, 1) == b""


async def test_bytes_that_come_while_the_dial_waits_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Begun, "connected", property(lambda _: False, lambda _self, _value: None))
    async with tunnelling() as m:
        stream = await called(m, b"x" * 50_000)
        assert m.db.ledger.live()[0].handling is Handling.RELAYED
        await stream.aclose()
        await m.quiet()
        assert {reason for _, reason in m.db.ledger.counters()} == {"clean"}


async def test_a_dial_that_fails_later_is_answered_as_well() -> None:
    async with tunnelling() as m:
        m.app.address = TcpAddress("app.invalid", 1)
        await ended(await connect(m))
        await until(lambda: not m.web.ledger.live())
        assert "503 app_name_unresolved" in m.web.ledger.recent()[-1].detail
