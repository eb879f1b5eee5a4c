"""The admin endpoint's server over real loopback and unix sockets, and its bounds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.bind import bind
from agent.observe import server as admin
from agent.observe.server import MAX_BODY, MAX_CONNECTIONS, Admin, Reply, Route, text_reply


async def greet(_body: bytes) -> Reply:
    return text_reply(200, "hello")


async def echo(body: bytes) -> Reply:
    return Reply(status=202, body=body)


ROUTES = (
    Route(method="GET", path="/hello", answer=greet),
    Route(method="POST", path="/echo", answer=echo, changes=True),
)


@asynccontextmanager
async def serving(address: Address) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """A connection to a server at that address."""
    bound = await bind(address, "x")
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(ROUTES).serve, [bound.sock])
        async with await _connected(address, bound.sock) as stream:
            yield stream
        nursery.cancel_scope.cancel()
    bound.close()


async def _connected(address: Address, sock: socket.socket) -> trio.SocketStream:
    if isinstance(address, UnixAddress):
        return await trio.open_unix_socket(address.path)
    return await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1])


LOOPBACK = TcpAddress("127.0.0.1", 0)


async def ask(stream: trio.abc.Stream, request: bytes, *, until: bytes = b"\n") -> bytes:
    """Send, and read until the answer ends so."""
    await stream.send_all(request)
    answer = b""
    with trio.fail_after(5):
        while not answer.endswith(until):
            chunk = await stream.receive_some()
            if not chunk:
                break
            answer += bytes(chunk)
    return answer


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_a_question_and_its_answer() -> None:
    async with serving(LOOPBACK) as stream:
        head, _, body = (await ask(stream, get("/hello?x=1"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: 6" in head
    assert b"Cache-Control: no-store" in head
    assert body == b"hello\n"


async def test_one_connection_asks_again_and_again() -> None:
    async with serving(LOOPBACK) as stream:
        for _ in range(3):
            assert (await ask(stream, get("/hello"))).endswith(b"hello\n")


async def test_head_has_no_body() -> None:
    async with serving(LOOPBACK) as stream:
        answer = await ask(stream, get("/hello", "HEAD"), until=b"\r\n\r\n")
        assert b"Content-Length: 6" in answer
        assert (await ask(stream, get("/hello"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        (get("/nowhere"), b"404", b"try /live, /ready, /metrics or /status"),
        (get("/hello", "DELETE"), b"405", b"/hello answers GET"),
        (get("/echo", "POST"), b"403", b"POST /echo is answered over the unix socket only"),
        (b"nonsense\r\n\r\n", b"400", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000, b"431", b""),
    ],
)
async def test_questions_without_an_answer(request_: bytes, status: bytes, text: bytes) -> None:
    async with serving(LOOPBACK) as stream:
        answer = await ask(stream, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert text in answer


async def test_what_changes_the_agent_is_answered_over_the_unix_socket(tmp_path: Path) -> None:
    async with serving(UnixAddress(str(tmp_path / "s"))) as stream:
        request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab\n"
        answer = await ask(stream, request)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert answer.endswith(b"\r\n\r\nab\n")


@pytest.mark.parametrize("name", ["Host_", "X.Y", "Content_Length"])
async def test_a_name_that_a_gateway_folds_into_anothers_is_refused(name: str) -> None:
    async with serving(LOOPBACK) as stream:
        answer = await ask(stream, f"GET /hello HTTP/1.1\r\nHost: a\r\n{name}: b\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(
        b"field_name: %b: names are up to 256 letters, digits and hyphens\n" % name.encode()
    )


async def test_a_body_has_a_limit(tmp_path: Path) -> None:
    async with serving(UnixAddress(str(tmp_path / "s"))) as stream:
        size = MAX_BODY + 1
        request = f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
        assert (await ask(stream, request)).startswith(b"HTTP/1.1 413 ")


async def test_connections_have_a_limit() -> None:
    bound = await bind(LOOPBACK, "x")
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(ROUTES).serve, [bound.sock])
        port = bound.sock.getsockname()[1]
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        for stream in streams:
            await ask(stream, get("/hello"))
        one_more = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(5):
            assert await one_more.receive_some() == b""
        for stream in (*streams, one_more):
            await stream.aclose()
        nursery.cancel_scope.cancel()
    bound.close()


async def test_who_asks_nothing_is_sent_away(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await admin._Conversation(theirs, {}, may_change=False).run()

        nursery.start_soon(serve)
        await ours.send_all(b"GET / HT")
    assert trio.current_time() - began == admin.REQUEST_SECONDS


async def test_a_second_question_may_take_longer(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    routes = {("GET", "/hello"): ROUTES[0]}
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await admin._Conversation(theirs, routes, may_change=False).run()

        nursery.start_soon(serve)
        await ask(ours, get("/hello"))
        await trio.sleep(admin.IDLE_SECONDS - 1)
        assert (await ask(ours, get("/hello"))).endswith(b"hello\n")
        await ours.aclose()


async def test_an_asker_that_breaks_off_is_no_error() -> None:
    bound = await bind(LOOPBACK, "x")
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(ROUTES).serve, [bound.sock])
        for _ in range(2):
            sock = socket.create_connection(("127.0.0.1", bound.sock.getsockname()[1]))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(b"GET /hel")
            sock.close()
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    bound.close()
