"""The admin endpoint's server over real loopback and unix sockets, and its bounds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.admission import Admission
from agent.net.bind import bind
from agent.observe import server as admin
from agent.observe.server import MAX_BODY, MAX_CONNECTIONS, Admin, Reply, Route, text_reply
from tests.agent.net.test_accept import Told


async def greet(_body: bytes) -> Reply:
    return text_reply(200, "hello")


async def echo(body: bytes) -> Reply:
    return Reply(status=202, body=body)


ROUTES = (
    Route(method="GET", path="/hello", answer=greet),
    Route(method="POST", path="/echo", answer=echo, changes=True),
)


class Heard(Told):
    """Who is told of trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[str, Exception]] = []

    def admin_failed(self, path: str, error: Exception, /) -> None:
        self.failed.append((path, error))


def conversation(stream: trio.abc.Stream, routes: Sequence[Route]) -> admin._Conversation:
    """Over TCP, by the name of localhost."""
    table = {(route.method, route.path): route for route in routes}
    return admin._Conversation(stream, table, Admission().enter(), events=Heard(), hosts={"localhost"})


@asynccontextmanager
async def serving(address: Address) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """A connection to a server at that address."""
    bound = await bind(address, "x")
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(ROUTES, Heard()).serve, [bound.sock])
        async with await _connected(address, bound.sock) as stream:
            yield stream
        nursery.cancel_scope.cancel()
    bound.close()


@asynccontextmanager
async def listening(
    routes: Sequence[Route] = ROUTES, hosts: Sequence[str] = ()
) -> AsyncIterator[tuple[tuple[str, int], Heard]]:
    """Where a server of these routes is, and what it tells of."""
    bound, heard = await bind(LOOPBACK, "x"), Heard()
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(routes, heard, hosts).serve, [bound.sock])
        yield bound.sock.getsockname(), heard
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
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


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


@pytest.mark.parametrize("after", [b"0", b"GET /hello\r\n\r\n"])
async def test_what_no_request_is_after_a_head_gets_an_answer_with_its_body(after: bytes) -> None:
    async with serving(LOOPBACK) as stream:
        await stream.send_all(get("/hello", "HEAD") + after)
        await stream.send_eof()
        answer = b"".join([part async for part in stream])
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.partition(b"HTTP/1.1 400 ")[2].partition(b"\r\n\r\n")[2]


async def test_a_head_that_is_refused_has_no_body() -> None:
    async with serving(LOOPBACK) as stream:
        refused = get("/hello", "HEAD").replace(b"\r\n\r\n", b"\r\nX_A: 1\r\n\r\n")
        answer = await ask(stream, refused, until=b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        (get("/nowhere"), b"404", b"try /live, /ready, /metrics or /status"),
        (get("/hello", "DELETE"), b"405", b"/hello answers GET"),
        (get("/echo", "POST"), b"403", b"POST /echo is answered over the unix socket only"),
        (b"nonsense\r\n\r\n", b"400", b""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000, b"431", b""),
    ],
)
async def test_questions_without_an_answer(request_: bytes, status: bytes, text: bytes) -> None:
    async with serving(LOOPBACK) as stream:
        answer = await ask(stream, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert text in answer


async def test_what_changes_the_agent_is_answered_over_the_unix_socket(tmp_path: Path) -> None:
    async with serving(UnixAddress(str(tmp_path / "s"))) as stream:
        request = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nab\n"
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
        request = (
            f"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
        )
        assert (await ask(stream, request)).startswith(b"HTTP/1.1 413 ")


async def test_a_probe_is_answered_though_more_than_all_places_are_held_by_those_who_ask_nothing() -> None:
    async with listening() as (address, _):
        idle = [await trio.open_tcp_stream(*address) for _ in range(MAX_CONNECTIONS)]
        asked = []
        for _ in range(MAX_CONNECTIONS):
            asked.append(await trio.open_tcp_stream(*address))
            assert (await ask(asked[-1], get("/hello"))).endswith(b"hello\n")  # and stays
        begun = [await trio.open_tcp_stream(*address) for _ in range(MAX_CONNECTIONS)]
        for stream in begun:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"GET /hel")
        async with await trio.open_tcp_stream(*address) as probe:
            assert (await ask(probe, get("/hello"))).endswith(b"hello\n")
        with trio.fail_after(5):
            assert await idle[0].receive_some() == b""  # the oldest have given way
        for stream in (*idle, *asked, *begun):
            await stream.aclose()


async def test_what_is_being_answered_does_not_give_way() -> None:
    release = trio.Event()

    async def slow(_body: bytes) -> Reply:
        await release.wait()
        return text_reply(200, "at last")

    routes = (*ROUTES, Route(method="GET", path="/slow", answer=slow))
    async with listening(routes) as (address, _), await trio.open_tcp_stream(*address) as asker:
        await asker.send_all(get("/slow"))
        idle = [await trio.open_tcp_stream(*address) for _ in range(2 * MAX_CONNECTIONS)]
        async with await trio.open_tcp_stream(*address) as probe:
            assert (await ask(probe, get("/hello"))).endswith(b"hello\n")
        release.set()
        assert (await ask(asker, b"")).endswith(b"at last\n")
        for stream in idle:
            await stream.aclose()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:19000", "127.0.0.1:1", "[::1]", "box.example:80"])
async def test_who_asks_by_a_name_of_ours_is_answered(host: str) -> None:
    async with listening(hosts=("box.example",)) as (address, _), await trio.open_tcp_stream(*address) as one:
        answer = await ask(one, f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:19000", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
async def test_who_asks_by_another_name_is_refused(host: str) -> None:
    """DNS rebinding: the browser of somebody who can reach us asks for a page of the attacker's."""
    async with listening() as (address, _), await trio.open_tcp_stream(*address) as one:
        answer = await ask(one, f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"is no name of this endpoint" in answer


async def test_over_a_unix_socket_any_name_will_do(tmp_path: Path) -> None:
    async with serving(UnixAddress(str(tmp_path / "s"))) as stream:
        answer = await ask(stream, b"GET /hello HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_one_without_a_name_is_no_browser() -> None:
    async with listening() as (address, _), await trio.open_tcp_stream(*address) as one:
        assert (await ask(one, b"GET /hello HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_question_that_cannot_be_answered_ends_nothing_else() -> None:
    async def broken(_body: bytes) -> Reply:
        raise OSError(24, "Too many open files")

    routes = (*ROUTES, Route(method="GET", path="/broken", answer=broken))
    async with listening(routes) as (address, heard), await trio.open_tcp_stream(*address) as one:
        assert (await ask(one, get("/broken"))).startswith(b"HTTP/1.1 500 ")
        assert (await ask(one, get("/hello"))).endswith(b"hello\n")
    assert [path for path, _ in heard.failed] == ["/broken"]


async def test_who_asks_nothing_is_sent_away(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await conversation(theirs, ()).run()

        nursery.start_soon(serve)
        await ours.send_all(b"GET / HT")
    assert trio.current_time() - began == admin.REQUEST_SECONDS


async def test_a_second_question_may_take_longer(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await conversation(theirs, ROUTES).run()

        nursery.start_soon(serve)
        await ask(ours, get("/hello"))
        await trio.sleep(admin.IDLE_SECONDS - 1)
        assert (await ask(ours, get("/hello"))).endswith(b"hello\n")
        await ours.aclose()


async def test_an_asker_that_breaks_off_is_no_error() -> None:
    bound = await bind(LOOPBACK, "x")
    bound.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Admin(ROUTES, Heard()).serve, [bound.sock])
        for _ in range(2):
            sock = socket.create_connection(("127.0.0.1", bound.sock.getsockname()[1]))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(b"GET /hel")
            sock.close()
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    bound.close()
