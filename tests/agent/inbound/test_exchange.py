"""Exchanges that fail: every failure by name, told to the caller while that is still possible."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from agent.http1.request_reader import RequestReader
from agent.inbound.app_connection import AppConnection
from agent.inbound.exchange import Exchange, ExchangeFailed, Outcome
from agent.relay.close import reset
from agent.relay.splice import Progress
from agent.relay.streams import StreamBroken
from tests.agent.relay.test_streams import tls_pair
from tests.scenarios.http_app import AppSide, Reached, say_ok
from tests.scenarios.http_front import Caller, Front, allow, front, request
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import until

EVERYTHING = allow(PathPrefix="/")


def saying_raw(raw: bytes) -> Callable[[AppSide, Reached], Awaitable[None]]:
    """An app that reads the request, says these bytes and closes."""

    async def answer(side: AppSide, asked: Reached) -> None:
        await side.body(asked)
        await side.stream.send_all(raw)
        raise trio.EndOfChannel

    return answer


async def reasons(f: Front) -> dict[str, int]:
    """What was counted beside the allowance."""
    counted = dict(f.mesh.db.ledger.requests())
    counted.pop("permission_allow")
    return counted


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "app_closed"),
        (b"HTTP/1.1 200", "app_closed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "app_closed"),
        (b"hello\r\n\r\n", "app_malformed_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "app_malformed_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, "app_malformed_answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "app_malformed_answer"),
    ],
    ids=repr,
)
async def test_no_answer_that_can_be_used_is_502(raw: bytes, reason: str) -> None:
    async with front(EVERYTHING, answer=saying_raw(raw)) as f, f.caller() as caller:
        await caller.send(request("POST /", "Content-Length: 2", body=b"hi"))
        reply = await caller.reply()
        assert reply is not None
        assert (reply.status, reply.text) == (
            502,
            f"502 Bad Gateway: the service gave no answer ({reason})\n",
        )
        assert await caller.ended()
        assert await reasons(f) == {reason: 1}


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ],
)
async def test_an_answer_cut_short_arrives_cut_short(raw: bytes) -> None:
    async with front(EVERYTHING, answer=saying_raw(raw)) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        with pytest.raises(StreamBroken):
            await to_the_end(caller)
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value in {"app_closed", "app_malformed_answer"}


async def test_an_upgrade_to_something_else_is_not_passed_on() -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with front(EVERYTHING, answer=saying_raw(raw)) as f:
        reply = await f.ask(request("GET /", "Connection: Upgrade", "Upgrade: websocket"))
        assert reply is not None
        assert reply.status == 502


@pytest.mark.parametrize("line", ["GET /2", "DELETE /2"])
async def test_a_connection_the_app_has_closed_is_replaced_unseen(line: str) -> None:
    async def once(side: AppSide, asked: Reached) -> None:
        await say_ok(side, asked)
        raise trio.EndOfChannel

    async with front(EVERYTHING, answer=once) as f, f.caller() as caller:
        for each in ("GET /1", line):
            await caller.send(request(each))
            reply = await caller.reply()
            assert reply is not None
            assert reply.status == 200
        assert f.app.connections == 2


@pytest.mark.parametrize(("line", "status"), [("GET /2", 200), ("POST /2", 502)])
async def test_one_it_closes_on_the_next_request_is_replaced_if_that_may_be_repeated(
    line: str, status: int
) -> None:
    async def first_only(side: AppSide, asked: Reached) -> None:
        if len(f.app.reached) == 2:  # as if it had closed just before that request came
            raise trio.EndOfChannel
        await say_ok(side, asked)

    async with front(EVERYTHING, answer=first_only) as f, f.caller() as caller:
        for each, expected in (("GET /1", 200), (line, status)):
            await caller.send(request(each))
            reply = await caller.reply()
            assert reply is not None
            assert reply.status == expected


@pytest.mark.parametrize(("used", "outcome"), [(True, Outcome.STALE), (False, None)])
async def test_an_app_that_is_gone_before_the_head_is_sent(used: bool, outcome: Outcome | None) -> None:
    near, far = tcp_pair()
    reset(far)
    async with tls_pair() as (_, sidecar, _):
        await trio.lowlevel.wait_readable(near)
        call = RequestReader(host=b"db", identity=b"URI=x", judged=set).read(request("GET /"), b"")
        app = AppConnection(near, Progress(), last=False)
        app.used = used
        exchange = Exchange(sidecar, app, call)
        if outcome is None:
            with pytest.raises(ExchangeFailed, match="app_closed"):
                await exchange.run()
        else:
            assert await exchange.run() is outcome
        app.close()


@pytest.mark.parametrize(("line", "statuses"), [("GET", [200, 200]), ("POST", [200, 502])])
async def test_a_reset_is_as_good_as_an_end(line: str, statuses: list[int]) -> None:
    async def moody(side: AppSide, asked: Reached) -> None:
        if len(f.app.reached) == 2:
            linger_nothing = struct.pack("ii", 1, 0)
            side.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_nothing)
            raise trio.EndOfChannel
        await say_ok(side, asked)

    async with front(EVERYTHING, answer=moody) as f, f.caller() as caller:
        seen = []
        for _ in statuses:
            await caller.send(request(f"{line} /"))
            reply = await caller.reply()
            assert reply is not None
            seen.append(reply.status)
        assert seen == statuses


PLAIN = ("Content-Length: 2", b"ok")
CHUNKS = ("Transfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("framing", "body"), [PLAIN, CHUNKS])
async def test_an_app_that_says_more_than_its_answer_gets_no_second_request_there(
    at_once: bool, framing: str, body: bytes
) -> None:
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def chatty(side: AppSide, asked: Reached) -> None:
        await side.body(asked)
        if at_once:
            await side.say("HTTP/1.1 200 OK", framing, body=body + more)
        else:
            await side.say("HTTP/1.1 200 OK", framing, body=body)
            await side.stream.send_all(more)

    async with front(EVERYTHING, answer=chatty) as f, f.caller() as caller:
        for _ in range(2):
            await caller.send(request("GET /"))
            reply = await caller.reply()
            assert reply is not None
            assert reply.body == b"ok"
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert f.app.connections == 2


@pytest.mark.parametrize(("framing", "body"), [PLAIN, CHUNKS])
@pytest.mark.parametrize(("said", "connections"), [("Connection: keep-alive", 1), ("Connection: close", 2)])
async def test_a_connection_is_kept_until_the_app_says_otherwise(
    framing: str, body: bytes, said: str, connections: int
) -> None:
    async def answer(side: AppSide, asked: Reached) -> None:
        await side.body(asked)
        await side.say("HTTP/1.1 200 OK", framing, said, body=body)

    async with front(EVERYTHING, answer=answer) as f, f.caller() as caller:
        for _ in range(2):
            await caller.send(request("GET /"))
            reply = await caller.reply()
            assert reply is not None
            assert (reply.body, "connection" in reply.headers) == (b"ok", False)
        assert f.app.connections == connections


async def test_chunks_are_put_together_for_a_caller_of_http_1_0() -> None:
    async with (
        front(
            EVERYTHING,
            answer=saying_raw(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (CHUNKS[0].encode(), CHUNKS[1])),
        ) as f,
        f.caller() as caller,
    ):
        await caller.send(b"GET / HTTP/1.0\r\n\r\n")
        heard = b""
        while data := await caller.stream.receive():
            heard += data
        head, _, body = heard.partition(b"\r\n\r\n")
        assert (b"chunked" in head, body) == (False, b"ok")


@pytest.mark.parametrize(
    ("framing", "body", "reason"),
    [
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n", "request_cut_off"),
        ("Content-Length: 10", b"half", "request_cut_off"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\nzz\r\n", "malformed_body"),
        ("Transfer-Encoding: chunked", b"3\r\nabcd\r\n", "malformed_body"),
    ],
)
async def test_a_body_that_is_not_whole_never_seems_whole(framing: str, body: bytes, reason: str) -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(request("POST /", framing, body=body))
        await caller.stream.send_end()
        reply = await caller.reply()
        assert reply is not None
        assert reply.status == 400
        assert await reasons(f) == {reason: 1}
        await f.mesh.db.ledger.empty()
        assert all(not r.body or r.trailers == [] for r in f.app.reached)


async def test_a_caller_who_breaks_off_ends_the_exchange() -> None:
    gone = trio.Event()

    async def hang(side: AppSide, asked: Reached) -> None:
        try:
            await side.exactly(1)
        finally:
            gone.set()

    async with front(EVERYTHING, answer=hang) as f:
        async with f.caller() as caller:
            await caller.send(request("GET /"))
            await until(lambda: len(f.app.reached) == 1)
        with trio.fail_after(5):
            await gone.wait()
            await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value in {"tls_truncated", "tls_reset"}


@pytest.mark.parametrize("more", [b"", request("GET /more")])
async def test_a_caller_who_only_stops_asking_still_gets_the_answer(
    more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.inbound.exchange.PROMPT_SECONDS", 0.01)
    answering = trio.Event()

    async def slow(side: AppSide, asked: Reached) -> None:
        await answering.wait()
        await say_ok(side, asked)

    async with front(EVERYTHING, answer=slow) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        await until(lambda: len(f.app.reached) == 1)
        await trio.sleep(0.05)  # nothing tells that both tasks are waiting
        await caller.send(more)
        await caller.stream.send_end()
        await trio.sleep(0.05)
        answering.set()
        for _ in range(2 if more else 1):
            reply = await caller.reply()
            assert reply is not None
            assert reply.body == b"ok"
        assert await caller.ended()


async def test_an_app_that_stops_reading_may_still_answer() -> None:
    async def impatient(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 413 Too Large", "Content-Length: 0", "Connection: close")
        raise trio.EndOfChannel

    async with front(EVERYTHING, answer=impatient) as f, f.caller() as caller:
        await caller.send(request("PUT /", "Content-Length: 100000000"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, caller.stream.send)
            reply = await caller.reply()
            nursery.cancel_scope.cancel()
        assert reply is not None
        assert reply.status in {413, 502}  # 502: its reset overtook its answer


async def to_the_end(caller: Caller) -> None:
    while await caller.stream.receive():
        pass


async def pour(send: Callable[[bytes], Awaitable[None]]) -> None:
    try:
        while True:
            await send(b"x" * 65536)
    except StreamBroken:
        return
