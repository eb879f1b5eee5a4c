"""Connections at the HTTP front: how long they may say nothing, how they end, and what the books say then."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio

from agent.base.address import TcpAddress
from agent.inbound.exchange import Exchange
from agent.inbound.http_connection import HttpConnection
from tests.scenarios.http_app import AppSide, Reached, say_ok
from tests.scenarios.http_front import Front, allow, deny, front, request
from tests.support.policies import policy_of
from tests.support.two_sidecars import until

EVERYTHING = allow(PathPrefix="/")


async def hang_up(side: AppSide, asked: Reached) -> None:
    raise trio.EndOfChannel


async def say_at_once(side: AppSide, asked: Reached) -> None:
    await side.ok()
    await trio.sleep_forever()


def ending(f: Front) -> tuple[str, str]:
    finished = f.mesh.db.ledger.recent()[-1]
    return finished.reason.value, finished.detail


async def test_an_orderly_end_is_clean() -> None:
    async with front(EVERYTHING) as f:
        async with f.caller() as caller:
            await caller.send(request("GET /"))
            assert await caller.reply()
            await caller.stream.send_end()
            assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert ending(f) == ("clean", "")
        finished = f.mesh.db.ledger.recent()[-1]
        assert finished.opened
        assert finished.dialled == str(f.mesh.app.address)
        assert finished.to_plain > 0
        assert finished.to_tls > 0


async def test_a_caller_that_is_only_denied_costs_the_app_nothing() -> None:
    async with front(deny(PathPrefix="/")) as f, f.caller() as caller:
        for _ in range(50):
            await caller.send(request("GET /x"))
            reply = await caller.reply()
            assert reply is not None
            assert reply.status == 403
        assert f.mesh.app.accepts == 0
        assert f.mesh.db.ledger.requests() == {"permission_deny": 50}


async def test_silence_is_ended_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.inbound.http_connection.IDLE_SECONDS", 0.05)
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        assert await caller.reply()
        assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert ending(f) == ("idle_timeout", "no request for 0.05 s")


async def test_half_a_head_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.inbound.http_connection.HEAD_SECONDS", 0.05)
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(b"GET / HTTP/1.1\r\nX: ")
        reply = await caller.reply()
        assert reply is not None
        assert reply.status == 408
        assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert ending(f)[0] == "head_timeout"


@pytest.mark.parametrize("start", [b"GET / HT", b"\r\n"])
async def test_half_a_head_and_the_end(start: bytes) -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(start)
        await caller.stream.send_end()
        assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert ending(f)[0] == "head_cut_off"


async def test_a_head_may_come_byte_by_byte() -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        for byte in request("GET /slow"):
            await caller.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await caller.reply()
        assert f.app.reached[0].target == "/slow"


async def test_a_request_nobody_can_read_ends_the_connection_by_its_name() -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(request("GET /a%2fb") + request("GET /next"))
        reply = await caller.reply()
        assert reply is not None
        assert reply.text == "400 Bad Request: %2f may or may not be a separator (encoded_slash)\n"
        assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert ending(f)[0] == "encoded_slash"
        (refused,) = f.mesh.db.events.refused_requests
        assert (refused.method, refused.target, refused.status) == ("GET", "/a%2fb", 400)
        assert f.app.reached == []


async def test_an_app_that_is_not_there_is_503_and_the_connection_goes_on() -> None:
    async with front(EVERYTHING) as f:
        with trio.socket.socket() as taken:
            await taken.bind(("127.0.0.1", 0))
            f.mesh.app.address = TcpAddress(*taken.getsockname())
            async with f.caller() as caller:
                for _ in range(2):
                    await caller.send(request("POST /", "Content-Length: 2", body=b"hi"))
                    reply = await caller.reply()
                    assert reply is not None
                    assert reply.status == 503
                    assert "(connect_refused)" in reply.text


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 10000000"])
async def test_a_refused_request_with_much_behind_it_ends_the_connection(framing: str) -> None:
    async with front(deny(PathPrefix="/")) as f, f.caller() as caller:
        await caller.send(request("POST /", framing, body=b"5\r\nhello\r\n"))
        reply = await caller.reply()
        assert reply is not None
        assert (reply.status, reply.headers["connection"]) == (403, "close")
        assert await caller.ended()


async def test_every_request_is_judged_by_the_newest_intentions() -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        assert await caller.reply()
        statuses = []
        for action in ("allow", "deny", "allow"):
            rule = {"SourceName": "web", "DestinationName": "db", "Action": action}
            f.mesh.policy.publish(policy_of([rule], "db", default_allow=False))
            await caller.send(request("GET /"))
            reply = await caller.reply()
            assert reply is not None
            statuses.append(reply.status)
        assert statuses == [200, 403, 200]


async def test_a_pattern_nobody_can_match_denies_and_says_so() -> None:
    async with front(allow(PathRegex="(?=a)"), default_allow=True) as f:
        reply = await f.ask(request("GET /"))
        assert reply is not None
        assert "(unsupported_pattern)" in reply.text
        assert "invalid perl operator" in f.mesh.db.events.refused_requests[0].rule


async def test_a_connection_that_is_closed_from_outside_resets_the_app() -> None:
    ended = trio.Event()

    async def hang(side: AppSide, asked: Reached) -> None:
        try:
            await side.exactly(1)
        finally:
            ended.set()

    async with front(EVERYTHING, answer=hang) as f, f.caller() as caller:
        await caller.send(request("GET /"))
        await until(lambda: len(f.app.reached) == 1)
        f.mesh.db.ledger.live()[0].cut()
        with trio.fail_after(5):
            await ended.wait()
        assert await caller.reply() is None


async def test_many_at_once() -> None:
    async def slow(side: AppSide, asked: Reached) -> None:
        await trio.sleep(0.01)
        await say_ok(side, asked)

    async with front(EVERYTHING, answer=slow) as f:

        async def one() -> None:
            async with f.caller() as caller:
                for _ in range(5):
                    await caller.send(request("GET /"))
                    assert await caller.reply()

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(one)
        assert len(f.app.reached) == 200
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.requests() == {"permission_allow": 200}


ENDINGS = {
    "plain": (request("GET /") * 2, say_ok),
    "chunks": (request("POST /", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), say_ok),
    "denied": (request("GET /no"), say_ok),
    "unreadable": (b"hello\r\n\r\n", say_ok),
    "no answer": (request("GET /"), hang_up),
    "no chunk": (request("POST /", "Transfer-Encoding: chunked", body=b"zz\r\n"), say_ok),
    "answered early": (request("PUT /", "Content-Length: 9"), say_at_once),
    "cut off": (request("PUT /", "Content-Length: 9"), say_ok),
}


@pytest.mark.parametrize("case", ENDINGS)
async def test_a_connection_that_has_ended_leaves_nothing_to_the_collector(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of them would keep their TLS state until it runs."""
    made: list[weakref.ref[object]] = []

    def watched(name: str, kind: type[object]) -> None:
        def make(*args: Any, **kwargs: Any) -> object:
            one = kind(*args, **kwargs)
            made.append(weakref.ref(one))
            return one

        monkeypatch.setattr(name, make)

    watched("agent.inbound.by_request.HttpConnection", HttpConnection)
    watched("agent.inbound.http_connection.Exchange", Exchange)
    raw, answer = ENDINGS[case]
    gc.disable()
    try:
        async with front(deny(PathPrefix="/no"), EVERYTHING, answer=answer) as f:
            async with f.caller() as caller:
                await caller.send(raw)
                if case != "cut off":
                    assert await caller.reply()
                await caller.stream.send_end()
                while await caller.stream.receive():
                    pass
            await f.mesh.db.ledger.empty()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert made
            assert [kept for one in made if (kept := one()) is not None] == []
    finally:
        gc.enable()
