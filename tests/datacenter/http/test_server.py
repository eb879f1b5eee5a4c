"""The listener over real sockets: bodies, blocked requests, clients that leave, stopping."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio

from datacenter.http.context import Reply, Request, Route
from datacenter.http.frame import Frame
from datacenter.http.server import (
    LARGEST_BODY,
    CannotListen,
    ShortageOfOurs,
    bound_address,
    open_listener,
    serve_http,
)
from tests.datacenter.world import World, settings


class Endpoint:
    """Blocks until told, and knows how many requests it holds."""

    def __init__(self) -> None:
        self.held = 0
        self.changed = trio.Event()
        self.release = trio.Event()

    async def block(self, request: Request) -> Reply:
        self._count(+1)
        try:
            await self.release.wait()
        finally:
            self._count(-1)
        return Reply(value="released")

    async def echo(self, request: Request) -> Reply:
        return Reply(value={"path": request.params["name"], "size": len(request.body), **request.query})

    def _count(self, by: int) -> None:
        self.held += by
        self.changed.set()
        self.changed = trio.Event()

    async def holding(self, count: int) -> None:
        with trio.fail_after(5):
            while self.held != count:
                await self.changed.wait()


@asynccontextmanager
async def serving(
    address: str = "127.0.0.1:0", hosts: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Endpoint, str, trio.CancelScope]]:
    endpoint = Endpoint()
    routes = [Route("GET", "/block", endpoint.block)]
    routes += [Route(method, "/echo/{name:path}", endpoint.echo) for method in ("GET", "PUT")]
    frame = Frame(World().add(settings("dc1", http_hosts=hosts)).dc, routes)
    listener = open_listener(address)
    where = bound_address(listener)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, frame, listener)
        yield endpoint, where, nursery.cancel_scope
        endpoint.release.set()
        nursery.cancel_scope.cancel()


async def connect(where: str) -> trio.SocketStream:
    if where.startswith("unix://"):
        return await trio.open_unix_socket(where.removeprefix("unix://"))
    host, _, port = where.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def ask(where: str, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    client = h11.Connection(h11.CLIENT)
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("Connection", "close")]
    async with await connect(where) as stream:
        await send(client, stream, h11.Request(method=method, target=target, headers=headers))
        await send(client, stream, h11.Data(data=body))
        await send(client, stream, h11.EndOfMessage())
        return await answer(client, stream)


async def send(client: h11.Connection, stream: trio.SocketStream, event: h11.Event) -> None:
    data = client.send(event)
    if data:
        await stream.send_all(data)


async def answer(client: h11.Connection, stream: trio.SocketStream) -> tuple[int, bytes]:
    status, body = 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            return status, body


async def until(stream: trio.SocketStream, wanted: bytes) -> None:
    """Read up to these bytes."""
    received = b""
    with trio.fail_after(5):
        while wanted not in received:
            chunk = await stream.receive_some(65536)
            assert chunk, received
            received += chunk


async def test_a_request() -> None:
    async with serving() as (_, where, _):
        target = "/echo/a%20b/c?x=%26"
        assert await ask(where, "PUT", target, b"12345") == (
            200,
            b'{"path":"a b/c","size":5,"x":"\\u0026"}',
        )


@pytest.mark.parametrize("name", ["X_Consul_Token", "X.Consul.Token", "Host_"])
async def test_a_name_that_a_gateway_folds_into_anothers_is_refused(name: str) -> None:
    async with serving() as (_, where, _), await connect(where) as stream:
        await stream.send_all(f"GET /echo/x HTTP/1.1\r\nHost: localhost\r\n{name}: b\r\n\r\n".encode())
        await until(stream, b"HTTP/1.1 400 ")


async def asked_by(where: str, host: str) -> bytes:
    """Everything that comes back."""
    async with await connect(where) as stream:
        await stream.send_all(f"GET /echo/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        with trio.fail_after(5):
            return b"".join([bytes(part) async for part in stream])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:8500", "127.0.0.1:1", "[::1]", "dc1.example:80"])
async def test_who_asks_by_a_name_of_ours_is_answered(host: str) -> None:
    async with serving(hosts=("dc1.example",)) as (_, where, _):
        assert (await asked_by(where, host)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8500", "127.0.0.1.evil.example", "10.0.0.9", ""]
)
async def test_who_asks_by_another_name_is_refused(host: str) -> None:
    """DNS rebinding: the browser of somebody who can reach us asks for a page of the attacker's."""
    async with serving() as (_, where, _):
        answer = await asked_by(where, host)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"foreign_host: " in answer


async def test_over_a_unix_socket_any_name_will_do(tmp_path: Path) -> None:
    async with serving(f"unix://{tmp_path}/api.sock") as (_, where, _):
        assert (await asked_by(where, "evil.example")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "stray", [b"0", b"\r\n\r\nGET", b"\x16\x03\x01\0\1\1", b"GET /echo/y\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"]
)
async def test_what_is_no_request_after_one_is_refused_and_ends_the_connection(stray: bytes) -> None:
    async with serving() as (_, where, _), await connect(where) as stream:
        await stream.send_all(b"GET /echo/x HTTP/1.1\r\nHost: localhost\r\n\r\n" + stray)
        await stream.send_eof()
        with trio.fail_after(5):
            answer = b"".join([bytes(part) async for part in stream])
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 ") - answer.count(b"HTTP/1.1 400 ") == 1


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/api.sock"
    async with serving(address) as (_, where, _):
        assert where == address
        assert (await ask(where, "GET", "/echo/x"))[0] == 200


async def test_a_body_at_the_bound_and_one_beyond() -> None:
    async with serving() as (_, where, _):
        assert (await ask(where, "PUT", "/echo/x", b"x" * LARGEST_BODY))[0] == 200
        status, body = await ask(where, "PUT", "/echo/x", b"x" * (LARGEST_BODY + 1))
        assert (status, body) == (413, b"Request body too large")


async def test_a_client_that_leaves_ends_its_blocked_request() -> None:
    async with serving() as (endpoint, where, _):
        streams = [await connect(where) for _ in range(20)]
        for stream in streams:
            await stream.send_all(b"GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await endpoint.holding(20)
        for stream in streams[:15]:
            await stream.aclose()
        await endpoint.holding(5)
        endpoint.release.set()
        for stream in streams[15:]:
            await until(stream, b"released")
            await stream.aclose()


async def test_stopping_waits_briefly_for_requests() -> None:
    async with serving() as (endpoint, where, scope):
        stream = await connect(where)
        await stream.send_all(b"GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await endpoint.holding(1)
        started = trio.current_time()
        scope.cancel()
    assert trio.current_time() - started < 3
    assert endpoint.held == 0
    await stream.aclose()


async def test_stopping_lets_an_answer_be_written() -> None:
    async with serving() as (endpoint, where, scope):
        stream = await connect(where)
        await stream.send_all(b"GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await endpoint.holding(1)
        scope.cancel()
        endpoint.release.set()
    await until(stream, b"released")
    await stream.aclose()


def test_an_address_in_use() -> None:
    with open_listener("127.0.0.1:0") as taken:
        address = bound_address(taken)
        with pytest.raises(CannotListen) as caught:
            open_listener(address)
    assert str(caught.value) == f"cannot listen on {address}: address already in use"


@pytest.mark.parametrize(
    "address", ["192.0.2.1:80", "nobody.invalid:80", "127.0.0.1:x", "unix:///nowhere/x.sock"]
)
def test_an_address_that_cannot_be_had(address: str) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on {address}: "):
        open_listener(address)


def test_ipv6() -> None:
    try:
        listener = open_listener("[::1]:0")
    except CannotListen:
        pytest.skip("no IPv6 here")
    with listener:
        assert bound_address(listener).startswith("[::1]:")


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/api.sock"
    open_listener(address).close()
    with open_listener(address), pytest.raises(CannotListen, match="address already in use"):
        open_listener(address)


def test_a_file_in_the_way_is_not(tmp_path: Path) -> None:
    (tmp_path / "api.sock").write_text("precious")
    with pytest.raises(CannotListen):
        open_listener(f"unix://{tmp_path}/api.sock")
    assert (tmp_path / "api.sock").read_text() == "precious"


async def test_the_listener_is_not_inherited_from_nowhere() -> None:
    """What is served is the very socket that was opened: nobody can take the port in between."""
    async with serving() as (_, where, _):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(where.rpartition(":")[2])))


def shortage(seconds: float) -> logging.LogRecord:
    """What trio logs, so many seconds after the first."""
    error = OSError(24, "Too many open files")
    record = logging.LogRecord("trio", logging.ERROR, "", 0, "%s", ("x",), (OSError, error, None))
    record.created = 1_800_000_000.0 + seconds
    return record


def test_a_shortage_is_a_line_without_a_traceback_once_in_a_while() -> None:
    once = ShortageOfOurs()
    first = shortage(0)
    assert once.filter(first)
    assert first.getMessage() == "no connection is accepted for now: Too many open files"
    assert first.exc_info is None
    assert [once.filter(shortage(after)) for after in (0.1, 9.9, 10.0, 10.1)] == [False, False, True, False]
