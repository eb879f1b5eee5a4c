"""HTTP exchanges over in-memory streams."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair, wait_all_tasks_blocked

from agent.consul.http import MAX_IDLE, Client, Request, RequestFailed, RequestFailure, Response

Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
GET = Request(method="GET", target="/v1/x")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Consul-Index: 7\r\n\r\nok"


class Server:
    """The far ends of all connections, in the order they were dialled."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.failure: Exception | None = None
        self.silent_dial = False

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.silent_dial:
            await trio.sleep_forever()
        if self.failure is not None:
            raise self.failure
        ours, theirs = memory_stream_pair()
        self.streams.append(theirs)
        return ours

    def client(self, max_body: int = 1000) -> Client:
        return Client(self.dial, host="consul:8500", max_body=max_body)


class Ask:
    """One exchange in the background, and how it ended."""

    def __init__(self, client: Client, request: Request = GET, seconds: float = 5) -> None:
        self._client, self._request, self._seconds = client, request, seconds
        self.response: Response | None = None
        self.failure: RequestFailed | None = None

    async def run(self) -> None:
        try:
            self.response = await self._client.exchange(self._request, self._seconds)
        except RequestFailed as failure:
            self.failure = failure


async def exchange(
    client: Client, server: Server, answer: bytes, request: Request = GET
) -> tuple[bytes, Ask]:
    """Ask, let the newest connection hear the request and answer it; what it heard, and how it ended."""
    ask = Ask(client, request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask.run)
        await wait_all_tasks_blocked()
        stream = server.streams[-1]
        heard = bytes(await stream.receive_some())
        await stream.send_all(answer)
        await wait_all_tasks_blocked()
        if ask.response is None and ask.failure is None:
            await stream.aclose()
    return heard, ask


async def test_a_request_and_its_answer() -> None:
    server = Server()
    heard, ask = await exchange(server.client(), server, OK)
    assert heard.startswith(b"GET /v1/x HTTP/1.1\r\nHost: consul:8500\r\n")
    assert ask.response == Response(
        status=200, headers={"content-length": "2", "x-consul-index": "7"}, body=b"ok"
    )


async def test_a_body_has_its_length_and_an_empty_put_says_zero() -> None:
    server = Server()
    client = server.client()
    heard, _ = await exchange(client, server, OK, Request(method="PUT", target="/", body=b"{}"))
    assert b"Content-Length: 2\r\n" in heard
    assert heard.endswith(b"\r\n\r\n{}")
    heard, _ = await exchange(client, server, OK, Request(method="PUT", target="/"))
    assert b"Content-Length: 0\r\n" in heard


async def test_headers_may_hold_a_token_and_are_not_shown() -> None:
    request = Request(method="GET", target="/", headers={"X-Consul-Token": "s3cret"})
    server = Server()
    heard, _ = await exchange(server.client(), server, OK, request)
    assert b"X-Consul-Token: s3cret\r\n" in heard
    assert "s3cret" not in repr(request)


async def test_a_connection_is_kept_for_the_next_exchange() -> None:
    server = Server()
    client = server.client()
    for _ in range(3):
        _, ask = await exchange(client, server, OK)
        assert ask.response is not None
    assert len(server.streams) == 1
    await client.aclose()
    assert await server.streams[0].receive_some() == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ],
)
async def test_a_connection_the_server_means_to_close_is_not_kept(answer: bytes) -> None:
    server = Server()
    client = server.client()
    for _ in range(2):
        _, ask = await exchange(client, server, answer)
        assert ask.response is not None
        assert ask.response.body == b"ok"
    assert len(server.streams) == 2


async def test_a_kept_connection_that_has_gone_is_replaced() -> None:
    server = Server()
    client = server.client()
    await exchange(client, server, OK)
    await server.streams[0].aclose()
    _, ask = await exchange(client, server, OK)
    assert ask.response is not None
    assert len(server.streams) == 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_kept_connection_with_stray_bytes_is_not_used_again(late: bool) -> None:
    """They would be taken for the next answer."""
    far: list[trio.SocketStream] = []

    async def dial() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.socket.socketpair()
        far.append(trio.SocketStream(theirs))
        return trio.SocketStream(ours)

    client = Client(dial, host="consul:8500")
    stray = OK.replace(b"ok", b"no")
    for number, answer in enumerate((OK if late else OK + stray, OK)):
        ask = Ask(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask.run)
            await wait_all_tasks_blocked()
            assert len(far) == number + 1
            assert bytes(await far[number].receive_some()).startswith(b"GET /v1/x")
            await far[number].send_all(answer)
        assert ask.response is not None
        assert ask.response.body == b"ok"
        if late and not number:
            await far[number].send_all(stray)
    await client.aclose()
    for stream in far:
        await stream.aclose()


@pytest.mark.parametrize("seen", [b"H", b"HTTP/1.1 100 Continue\r\n\r\nH", OK[:-1]])
@pytest.mark.parametrize("ends", [trio.BrokenResourceError, lambda: b""])
async def test_a_kept_connection_that_breaks_amid_an_answer_is_no_stale_one(
    seen: bytes, ends: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something of the answer was seen: the question is not asked again."""
    server = Server()
    client = server.client()
    await exchange(client, server, OK)
    said = [lambda: seen, ends]

    async def cut_off(_self: object, _most: int | None = None) -> Any:
        await trio.sleep(0.05)  # longer than an idle connection is listened to
        if isinstance(last := said.pop(0)(), Exception):
            raise last
        return last

    monkeypatch.setattr(trio.StapledStream, "receive_some", cut_off)
    with pytest.raises(RequestFailed) as caught:
        await client.exchange(GET, 5)
    assert caught.value.failure is RequestFailure.CLOSED
    assert len(server.streams) == 1


async def test_two_at_once_have_a_connection_each_and_not_too_many_are_kept() -> None:
    server = Server()
    client = server.client()
    asks = [Ask(client) for _ in range(MAX_IDLE + 2)]
    async with trio.open_nursery() as nursery:
        for ask in asks:
            nursery.start_soon(ask.run)
        await wait_all_tasks_blocked()
        assert len(server.streams) == len(asks)
        for stream in server.streams:
            await stream.send_all(OK)
    assert all(ask.response for ask in asks)
    assert sum([await _is_open(stream) for stream in server.streams]) == MAX_IDLE


async def _is_open(stream: Stream) -> bool:
    ended = False

    async def read_to_the_end() -> None:
        nonlocal ended
        while await stream.receive_some():
            pass
        ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_the_end)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return not ended


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"nonsense\r\n\r\n", RequestFailure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", RequestFailure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", RequestFailure.CLOSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, RequestFailure.TOO_LARGE),
        (b"", RequestFailure.CLOSED),
    ],
)
async def test_no_usable_answer(answer: bytes, failure: RequestFailure) -> None:
    server = Server()
    client = server.client()
    _, ask = await exchange(client, server, answer)
    assert ask.failure is not None
    assert ask.failure.failure is failure
    _, ask = await exchange(client, server, OK)
    assert ask.response is not None, "a failed connection is not used again"


@pytest.mark.parametrize("value", ["one\ntwo", "\0", "caf\xe9\u20ac"])
async def test_what_no_header_can_hold_is_a_named_failure(value: str) -> None:
    server = Server()
    request = Request(method="GET", target="/", headers={"X-Consul-Token": value})
    with pytest.raises(RequestFailed, match="malformed: our request") as caught:
        await server.client().exchange(request, 5)
    assert caught.value.failure is RequestFailure.MALFORMED


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n",
        b"HTTP/1.1 200 OK\r\ns3cret" + b"\xff" * 9999 + b"\r\n\r\n",
        b"s3cret\r\n\r\n",
    ],
    ids=["chunk", "header", "status line"],
)
async def test_a_failure_shows_none_of_the_bytes_that_came(answer: bytes) -> None:
    server = Server()
    _, ask = await exchange(server.client(), server, answer)
    assert ask.failure is not None
    assert ask.failure.detail.startswith("illegal ")
    assert len(ask.failure.detail) < 40


async def test_a_failure_shows_nothing_of_our_token() -> None:
    request = Request(method="GET", target="/", headers={"X-Consul-Token": "s3cret\n"})
    with pytest.raises(RequestFailed) as caught:
        await Server().client().exchange(request, 5)
    assert caught.value.detail == "our request: Illegal header value"


async def test_a_connection_that_breaks_on_sending() -> None:
    server = Server()
    client = server.client()

    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await theirs.aclose()
        return ours

    server.dial = dial  # type: ignore[method-assign]
    client = server.client()
    with pytest.raises(RequestFailed, match="closed: the server closed the connection without an answer"):
        await client.exchange(GET, 5)


@pytest.mark.parametrize(
    ("error", "failure", "text"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            RequestFailure.UNREACHABLE,
            "Connection refused",
        ),
        (OSError("all attempts failed"), RequestFailure.UNREACHABLE, "all attempts failed"),
        (ssl.SSLError(1, "[SSL] odd"), RequestFailure.TLS, "odd"),
        (UnicodeError("label empty or too long"), RequestFailure.UNREACHABLE, "label empty or too long"),
    ],
)
async def test_no_connection(error: Exception, failure: RequestFailure, text: str) -> None:
    server = Server()
    server.failure = error
    with pytest.raises(RequestFailed) as caught:
        await server.client().exchange(GET, 5)
    assert caught.value.failure is failure
    assert text in caught.value.detail


async def test_the_causes_of_several_failed_addresses_are_told() -> None:
    server = Server()
    server.failure = OSError("all attempts to connect failed")
    server.failure.__cause__ = ExceptionGroup("attempts", [ConnectionRefusedError(111, "Connection refused")])
    with pytest.raises(RequestFailed, match="unreachable: Connection refused"):
        await server.client().exchange(GET, 5)


async def test_the_time_covers_connecting_and_answering(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    client = server.client()
    for silent in (True, False):
        server.silent_dial = silent
        began = trio.current_time()
        with pytest.raises(RequestFailed, match="timeout: no answer within 7 s"):
            await client.exchange(GET, 7)
        assert trio.current_time() - began == 7
    await server.streams[0].receive_some()
    assert await server.streams[0].receive_some() == b"", "the connection is closed"


async def test_a_cancelled_exchange_closes_its_connection() -> None:
    server = Server()
    client = server.client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Ask(client).run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await server.streams[0].receive_some()
    assert await server.streams[0].receive_some() == b""
