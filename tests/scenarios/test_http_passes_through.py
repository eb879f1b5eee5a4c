"""What HTTP can do goes through a judged connection: bodies, interim answers, upgrades, old clients."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio

from agent.connections.reauthorize import rejudge
from agent.policy.http_mode import HttpMode
from tests.scenarios.http_app import AppSide, Reached, say_ok
from tests.scenarios.http_front import Front, Reply, allow, deny, front, policy, request
from tests.support.policies import policy_of
from tests.support.two_sidecars import now, until

EVERYTHING = allow(PathPrefix="/")


async def ask(f: Front, raw: bytes, method: str = "GET") -> Reply:
    reply = await f.ask(raw, method)
    assert reply is not None
    return reply


def saying(*lines: str, body: bytes = b"") -> Callable[[AppSide, Reached], Awaitable[None]]:
    async def answer(side: AppSide, request: Reached) -> None:
        await side.body(request)
        await side.say(*lines, body=body)

    return answer


async def test_a_connection_serves_one_request_after_the_other_over_one_to_the_app() -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        for number in range(5):
            await caller.send(request(f"GET /{number}"))
            reply = await caller.reply()
            assert reply is not None
            assert reply.body == b"ok"
        assert [r.target for r in f.app.reached] == [f"/{number}" for number in range(5)]
        assert f.app.connections == 1


async def test_pipelined_requests_are_each_judged_and_answered_in_order() -> None:
    async with front(deny(PathPrefix="/no"), EVERYTHING) as f, f.caller() as caller:
        lines = ["GET /1", "GET /no/1", "GET /2", "GET /no/2", "GET /3"]
        await caller.send(b"".join(map(request, lines)))
        statuses = [reply.status for _ in lines if (reply := await caller.reply())]
        assert statuses == [200, 403, 200, 403, 200]
        assert [r.target for r in f.app.reached] == ["/1", "/2", "/3"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_big_body_streams_through_and_is_never_held_whole(chunked: bool) -> None:
    size, piece = 64 << 20, b"x" * 65536
    digest = hashlib.sha256()

    async def swallow(side: AppSide, asked: Reached) -> None:
        left = size
        while left:
            data = await side.exactly(int(await side.line(), 16) if chunked else min(left, len(piece)))
            if chunked:
                await side.line()
            digest.update(data)
            left -= len(data)
        if chunked:
            assert (await side.line(), await side.line()) == ("0", "")
        await side.ok()

    async with front(EVERYTHING, answer=swallow) as f, f.caller() as caller:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        tracemalloc.start()
        await caller.send(request("PUT /big", framing))
        for _ in range(size // len(piece)):
            await caller.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await caller.send(b"0\r\n\r\n")
        reply = await caller.reply()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert reply is not None
        assert digest.hexdigest() == hashlib.sha256(b"x" * size).hexdigest()
        assert peak < 8 << 20


async def test_a_big_answer_streams_through() -> None:
    size = 32 << 20

    async def pour(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 200 OK", f"Content-Length: {size}")
        for _ in range(size // 65536):
            await side.stream.send_all(b"y" * 65536)

    async with front(EVERYTHING, answer=pour) as f:
        reply = await ask(f, request("GET /big"))
        assert reply.body == b"y" * size


async def test_a_caller_who_does_not_read_holds_the_app_back() -> None:
    sent = 0

    async def pour(side: AppSide, asked: Reached) -> None:
        nonlocal sent
        await side.say("HTTP/1.1 200 OK", f"Content-Length: {1 << 30}")
        while True:
            await side.stream.send_all(b"y" * 65536)
            sent += 65536

    async with front(EVERYTHING, answer=pour) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        seen = -1
        while seen != sent or not sent:
            seen = sent
            await trio.sleep(0.1)
        assert sent < 64 << 20  # the kernel's buffers, not ours


async def test_chunks_and_trailers_go_both_ways() -> None:
    lines = ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum")
    answer = saying(*lines, body=b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n")
    async with front(EVERYTHING, answer=answer) as f:
        body = b"2\r\nhi\r\n1;x\r\n!\r\n0\r\nX-End: yes\r\nX-Forwarded-Client-Cert: URI=evil\r\n\r\n"
        reply = await ask(f, request("POST /", "Transfer-Encoding: chunked", body=body))
        assert reply.body == b"abcde"
        assert reply.trailers == [(b"x-sum", b"5")]
        (reached,) = f.app.reached
        assert reached.body == b"hi!"
        assert reached.trailers == [("X-End", "yes")]


async def test_an_answer_that_ends_with_its_connection_is_framed_for_the_caller() -> None:
    async def close(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 200 OK", "Connection: close", body=b"until the end")
        raise trio.EndOfChannel

    async with front(EVERYTHING, answer=close) as f, f.caller() as caller:
        for _ in range(2):  # the caller's connection goes on, the app's does not
            await caller.send(request("GET /"))
            reply = await caller.reply()
            assert reply is not None
            assert reply.body == b"until the end"
            assert reply.headers["transfer-encoding"] == "chunked"
        assert f.app.connections == 2


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("HEAD", ("HTTP/1.1 200 OK", "Content-Length: 99")),
        ("GET", ("HTTP/1.1 204 No Content",)),
        ("GET", ("HTTP/1.1 304 Not Modified", "Content-Length: 99", 'ETag: "x"')),
    ],
)
async def test_answers_without_a_body(method: str, lines: tuple[str, ...]) -> None:
    async with front(EVERYTHING, answer=saying(*lines)) as f, f.caller() as caller:
        for _ in range(2):
            await caller.send(request(f"{method} /"))
            with trio.fail_after(5):
                reply = await caller.reply(method)
            assert reply is not None
            assert reply.body == b""
        assert f.app.connections == 1


async def test_interim_answers_go_through() -> None:
    async def hints(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 103 Early Hints", "Link: </x>")
        await side.say("HTTP/1.1 102 Processing")
        await side.ok()

    async with front(EVERYTHING, answer=hints) as f:
        assert (await ask(f, request("GET /"))).interim == [103, 102]


async def test_100_continue_is_the_apps_to_say() -> None:
    async def cautious(side: AppSide, asked: Reached) -> None:
        if asked.target == "/no":
            await side.say("HTTP/1.1 413 Too Large", "Content-Length: 0", "Connection: close")
            raise trio.EndOfChannel
        await side.say("HTTP/1.1 100 Continue")
        await say_ok(side, asked)

    async with front(EVERYTHING, answer=cautious) as f, f.caller() as caller:
        await caller.send(request("PUT /yes", "Expect: 100-continue", "Content-Length: 2"))
        await until(lambda: len(f.app.reached) == 1)
        assert f.app.reached[0].header("expect") == ["100-continue"]
        received = await caller.stream.receive()
        assert received == b"HTTP/1.1 100 Continue\r\n\r\n"
        await caller.send(b"hi")
        reply = await caller.reply()
        assert reply is not None
        assert (reply.status, f.app.reached[0].body) == (200, b"hi")
        refused = await ask(f, request("PUT /no", "Expect: 100-continue", "Content-Length: 2"))
        assert refused.status == 413


async def test_an_early_answer_does_not_wait_for_the_request() -> None:
    async def hasty(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 413 Too Large", "Content-Length: 3", body=b"big")

    async with front(EVERYTHING, answer=hasty) as f, f.caller() as caller:
        await caller.send(request("PUT /", "Content-Length: 1000000", body=b"x"))
        reply = await caller.reply()
        assert reply is not None
        assert (reply.status, reply.body) == (413, b"big")
        assert await caller.ended()


async def test_http_1_0_is_served_and_its_connection_closed() -> None:
    lines = ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
    answer = saying("HTTP/1.1 103 Early Hints", "", *lines, body=b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n")
    async with front(EVERYTHING, answer=answer) as f, f.caller() as caller:
        await caller.send(b"GET /old HTTP/1.0\r\n\r\n")
        received = b""
        while data := await caller.stream.receive():
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
        assert b"chunked" not in head.lower()
        assert body == b"hi"
        assert f.app.reached[0].header("host") == [str(f.mesh.app.address)]


async def test_a_caller_that_asks_to_close_is_closed() -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(request("GET /", "Connection: close"))
        reply = await caller.reply()
        assert reply is not None
        assert reply.headers["connection"] == "close"
        assert await caller.ended()
        assert f.app.reached[0].header("connection") == []


async def shouting(side: AppSide, asked: Reached) -> None:
    """A WebSocket that answers in capitals what follows its handshake."""
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: x")
    await side.say("HTTP/1.1 101 Switching Protocols", *lines, body=b"HELLO")
    while True:
        data, side.buffer = side.buffer or await side.stream.receive_some(), b""
        if not data:
            await side.stream.send_eof()
            raise trio.EndOfChannel
        await side.stream.send_all(data.upper())


WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: y")


async def test_a_websocket_becomes_two_streams() -> None:
    async with front(allow(PathExact="/ws"), answer=shouting) as f, f.caller() as caller:
        await caller.send(request("GET /ws", *WEBSOCKET) + b"early")
        reply = await caller.reply()
        assert reply is not None
        assert (reply.status, reply.headers["upgrade"]) == (101, "websocket")
        received = caller.received
        while len(received) < len(b"HELLOEARLY"):
            received += await caller.stream.receive()
        assert received == b"HELLOEARLY"
        await caller.send(b"GET /forbidden HTTP/1.1\r\n\r\n")  # no request any more, but bytes
        assert await caller.stream.receive() == b"GET /FORBIDDEN HTTP/1.1\r\n\r\n"
        await caller.stream.send_end()
        assert await caller.stream.receive() == b""
        await f.mesh.db.ledger.empty()
        finished = f.mesh.db.ledger.recent()[-1]
        assert finished.reason.value == "clean"
        assert finished.to_plain > 40


async def test_an_upgrade_the_app_declines_leaves_a_judged_connection() -> None:
    async with front(allow(PathExact="/ws")) as f, f.caller() as caller:
        await caller.send(request("GET /ws", *WEBSOCKET) + request("GET /admin"))
        statuses = [reply.status for _ in range(2) if (reply := await caller.reply())]
        assert statuses == [200, 403]
        assert [r.target for r in f.app.reached] == ["/ws"]


@pytest.mark.parametrize("upgraded", [True, False])
async def test_a_change_of_intentions_ends_what_is_being_served(upgraded: bool) -> None:
    async def hang(side: AppSide, asked: Reached) -> None:
        await trio.sleep_forever()

    app = shouting if upgraded else hang
    async with front(allow(PathExact="/ws"), answer=app) as f, f.caller() as caller, f.caller() as idle:
        await caller.send(request("GET /ws", *WEBSOCKET))
        await until(lambda: len(f.app.reached) == 1)
        if upgraded:
            assert await caller.reply()
        judged = rejudge(
            f.mesh.db.ledger, f.mesh.policy.value, f.mesh.db.contexts.value, now(), too_old_since=None
        )
        assert judged.closed == 0
        f.mesh.policy.publish(policy(allow(PathExact="/other")))
        judged = rejudge(
            f.mesh.db.ledger, f.mesh.policy.value, f.mesh.db.contexts.value, now(), too_old_since=None
        )
        assert judged.closed == 1
        assert await caller.reply() is None
        await idle.send(request("GET /ws"))  # whoever asked nothing meanwhile is judged when it asks
        reply = await idle.reply()
        assert reply is not None
        assert reply.status == 403


async def test_http_nobody_looked_at_is_closed_when_an_intention_asks_to_look() -> None:
    rule = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    async with front(rules=[rule]) as f, f.caller() as caller:
        await caller.send(request("GET /", "X-Forwarded-Client-Cert: URI=forged"))
        assert await caller.reply()
        assert f.app.reached[0].header("x-forwarded-client-cert") == ["URI=forged"]  # relayed unread
        other = {"SourceName": "billing", "DestinationName": "db", "Permissions": [EVERYTHING]}
        f.mesh.policy.publish(policy_of([rule, other], "db", default_allow=False))
        judged = rejudge(
            f.mesh.db.ledger, f.mesh.policy.value, f.mesh.db.contexts.value, now(), too_old_since=None
        )
        assert judged.closed == 1
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value == "by_request_now"
        async with f.caller() as again:
            await again.send(request("GET /", "X-Forwarded-Client-Cert: URI=forged"))
            assert await again.reply()
        assert "svc/web" in f.app.reached[1].header("x-forwarded-client-cert")[0]


async def test_the_identity_can_be_asked_for_always() -> None:
    rule = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    async with front(rules=[rule], mode=HttpMode.ALWAYS) as f:
        await ask(f, request("GET /"))
        assert "svc/web" in f.app.reached[0].header("x-forwarded-client-cert")[0]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(HttpMode.UNSUPPORTED, "l7_unsupported_protocol"), (HttpMode.NEVER, "intention_by_request")],
)
async def test_permissions_for_what_is_not_parsed_deny(mode: HttpMode, reason: str) -> None:
    async with front(EVERYTHING, mode=mode) as f:
        assert await f.ask(request("GET /")) is None
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value == reason
        assert f.mesh.app.accepts == 0
