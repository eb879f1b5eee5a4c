"""Requests that the relay's loop serves, and every point at which the task goes on instead."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from agent.connections.reauthorize import rejudge
from agent.inbound import http_connection
from agent.inbound.exchange import Exchange
from agent.inbound.front import Front
from agent.relay.streams import CHUNK, TlsStream
from tests.scenarios.http_app import AppSide, Reached, say_ok
from tests.scenarios.http_front import Caller, Reply, allow, deny, front, policy, request
from tests.support.exchanges import watched_exchanges
from tests.support.faults import Faults
from tests.support.policies import policy_of
from tests.support.two_sidecars import now, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
RULES = deny(PathPrefix="/no"), allow(PathPrefix="/")
Saying = Callable[[AppSide, Reached], Awaitable[None]]


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    return watched_exchanges(monkeypatch)


async def ask(caller: Caller, raw: bytes, method: str = "GET") -> Reply:
    await caller.send(raw)
    with trio.fail_after(10):
        reply = await caller.reply(method)
    assert reply is not None
    return reply


def after_the_first(answer: Saying) -> Saying:
    """An app that says ok once on each connection, and then answers so."""
    begun: set[AppSide] = set()

    async def answered(side: AppSide, asked: Reached) -> None:
        if side in begun:
            await answer(side, asked)
        else:
            begun.add(side)
            await say_ok(side, asked)

    return answered


def raw_answer(*pieces: bytes) -> Saying:
    """An app that says these bytes, one piece after another."""

    async def say(side: AppSide, asked: Reached) -> None:
        for piece in pieces:
            await side.stream.send_all(piece)
            await trio.sleep(0.01)

    return say


async def test_all_but_the_first_request_take_no_exchange_of_the_task(exchanges: list[Exchange]) -> None:
    async with front(*RULES) as f, f.caller() as caller:
        for number in range(10):
            assert (await ask(caller, request(f"GET /{number}", f"X-Id: {number}"))).text == "ok"
        assert len(exchanges) == 1
        assert [reached.target for reached in f.app.reached] == [f"/{number}" for number in range(10)]
        assert f.mesh.app.accepts == 1
        assert f.mesh.db.ledger.requests() == {"permission_allow": 10}
        (connection,) = f.mesh.db.ledger.live()
        assert connection.request is None
        assert (connection.progress.to_plain > 0, connection.progress.to_tls > 0) == (True, True)


async def test_a_request_that_is_not_usual_is_served_between_usual_ones(exchanges: list[Exchange]) -> None:
    async with front(*RULES) as f, f.caller() as caller:
        for raw, status, more in (
            (request("GET /"), 200, 1),
            (request("GET /"), 200, 0),
            (request("GET /no"), 403, 0),
            (request("GET /"), 200, 0),
            (request("POST /", "Content-Length: 2", body=b"hi"), 200, 0),
            (request("POST /", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 200, 1),
            (request("GET /"), 200, 0),
        ):
            begun = len(exchanges)
            assert (await ask(caller, raw)).status == status
            assert len(exchanges) - begun == more
        assert f.mesh.db.ledger.requests() == {"permission_allow": 6, "permission_deny": 1}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-", b"Length: 2\r\n\r\nok"), "ok"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", b"ok"), "okok"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"), "ok"),
        ((b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "ok"),
    ],
)
async def test_an_answer_that_comes_in_parts_arrives_whole(answer: tuple[bytes, ...], text: str) -> None:
    async with front(*RULES, answer=after_the_first(raw_answer(*answer))) as f, f.caller() as caller:
        for expected in ("ok", text, text):
            assert (await ask(caller, request("GET /"))).text == expected
        assert f.mesh.app.accepts == 1


@pytest.mark.parametrize("pieces", [(OK,), (OK[:20], OK[20:])])
async def test_requests_that_come_during_an_exchange_are_served_after_it(pieces: tuple[bytes, ...]) -> None:
    go_on = trio.Event()

    async def wait(side: AppSide, asked: Reached) -> None:
        await go_on.wait()
        await raw_answer(*pieces)(side, asked)

    async with front(*RULES, answer=after_the_first(wait)) as f, f.caller() as caller:
        caller.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert (await ask(caller, request("GET /0"))).status == 200
        await caller.send(request("GET /1"))
        await until(lambda: len(f.app.reached) == 2)
        await caller.send(request("GET /no") + request("GET /2")[:20])
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
        assert [(await _reply(caller)).status for _ in range(2)] == [200, 403]
        assert (await ask(caller, request("GET /2")[20:])).status == 200
        assert [reached.target for reached in f.app.reached] == ["/0", "/1", "/2"]


async def _reply(caller: Caller) -> Reply:
    with trio.fail_after(10):
        reply = await caller.reply()
    assert reply is not None
    return reply


async def test_a_caller_that_writes_on_and_on_during_an_exchange_is_not_read_for_ever(
    exchanges: list[Exchange],
) -> None:
    async def never(side: AppSide, asked: Reached) -> None:
        await trio.sleep_forever()

    async with front(*RULES, answer=after_the_first(never)) as f, f.caller() as caller:
        assert (await ask(caller, request("GET /0"))).status == 200
        await caller.send(request("GET /1"))
        await until(lambda: len(f.app.reached) == 2)
        with trio.move_on_after(0.5):
            await caller.send(64 * CHUNK * b"x")
            pytest.fail("all of it was read")
        (resumed,) = exchanges[1:]
        assert len(resumed._body.rest) < 4 * CHUNK


async def test_a_caller_that_breaks_off_during_an_exchange_ends_it() -> None:
    gone = trio.Event()

    async def wait(side: AppSide, asked: Reached) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await side.stream.receive_some()
        gone.set()

    async with front(*RULES, answer=after_the_first(wait)) as f:
        async with f.caller() as caller:
            assert (await ask(caller, request("GET /0"))).status == 200
            await caller.send(request("GET /1"))
            await until(lambda: len(f.app.reached) == 2)
        with trio.fail_after(10):
            await gone.wait()
            await f.mesh.db.ledger.empty()


async def test_a_caller_that_has_ended_in_order_still_gets_its_answer() -> None:
    go_on = trio.Event()

    async def wait(side: AppSide, asked: Reached) -> None:
        await go_on.wait()
        await say_ok(side, asked)

    async with front(*RULES, answer=after_the_first(wait)) as f, f.caller() as caller:
        assert (await ask(caller, request("GET /0"))).status == 200
        await caller.send(request("GET /1"))
        await until(lambda: len(f.app.reached) == 2)
        await caller.stream.send_end()
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
        assert (await _reply(caller)).status == 200
        assert await caller.ended()


async def test_an_app_that_ends_an_idle_connection_is_dialled_anew() -> None:
    async def once(side: AppSide, asked: Reached) -> None:
        await say_ok(side, asked)
        if asked.target == "/last":
            raise trio.EndOfChannel

    async with front(*RULES, answer=once) as f, f.caller() as caller:
        for target in ("/0", "/last", "/1", "/2"):
            assert (await ask(caller, request(f"GET {target}"))).status == 200
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert f.mesh.app.accepts == 2


async def test_what_an_app_says_unasked_is_no_answer_to_the_next_request() -> None:
    async def twice(side: AppSide, asked: Reached) -> None:
        await say_ok(side, asked)
        if asked.target == "/1":
            await side.stream.send_all(WRONG)

    async with front(*RULES, answer=twice) as f, f.caller() as caller:
        for target in ("/0", "/1", "/2", "/3"):
            assert (await ask(caller, request(f"GET {target}"))).text == "ok"
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert f.mesh.app.accepts == 2


async def test_nor_is_what_an_app_says_unasked_between_a_request_and_its_turn() -> None:
    sides: list[AppSide] = []

    async def keep(side: AppSide, asked: Reached) -> None:
        sides.append(side)
        await say_ok(side, asked)

    async with front(*RULES, answer=keep) as f, f.caller() as caller:
        for _ in range(2):
            assert (await ask(caller, request("GET /"))).text == "ok"
        await trio.testing.wait_all_tasks_blocked()
        await caller.send(request("GET /"))  # both are there when the relay looks, the request first
        os.write(sides[-1].stream.socket.fileno(), WRONG)
        assert (await _reply(caller)).text == "ok"
        assert f.mesh.app.accepts == 2


@pytest.mark.parametrize(("line", "statuses"), [("GET /1", 200), ("POST /1", 502)])
async def test_an_app_that_resets_a_kept_connection_is_asked_again_only_if_that_is_safe(
    line: str, statuses: int
) -> None:
    async def reset(side: AppSide, asked: Reached) -> None:
        side.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise trio.EndOfChannel

    async with front(*RULES, answer=after_the_first(reset)) as f, f.caller() as caller:
        assert (await ask(caller, request("GET /0"))).status == 200
        assert (await ask(caller, request(line))).status == statuses


async def test_of_an_answer_that_is_taken_in_parts_no_byte_is_lost_or_sent_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths: list[int] = []

    def reluctant(stream: TlsStream, data: memoryview) -> int:
        lengths.append(len(data))
        return stream.connection.send(data[:10])

    monkeypatch.setattr(TlsStream, "send_nowait", reluctant)
    body = bytes(range(256)) * 50
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with front(*RULES, answer=after_the_first(raw_answer(whole))) as f, f.caller() as caller:
        assert (await ask(caller, request("GET /0"))).status == 200
        for number in range(5):
            assert (await ask(caller, request(f"GET /{number}"))).body == body
        assert max(lengths) > 10


async def test_a_change_of_intentions_ends_the_exchange_that_it_denies() -> None:
    async def never(side: AppSide, asked: Reached) -> None:
        await trio.sleep_forever()

    async with front(*RULES, answer=after_the_first(never)) as f, f.caller() as caller:
        assert (await ask(caller, request("GET /0"))).status == 200
        await caller.send(request("GET /1"))
        await until(lambda: len(f.app.reached) == 2)
        (connection,) = f.mesh.db.ledger.live()
        assert connection.request is not None
        assert connection.request.paths == ("/1",)
        contexts = f.mesh.db.contexts.value
        judged = rejudge(f.mesh.db.ledger, policy(deny(PathExact="/1")), contexts, now(), too_old_since=None)
        assert judged.closed == 1
        with trio.fail_after(10):
            assert await caller.reply() is None
            await f.mesh.db.ledger.empty()


async def test_the_newest_intentions_judge_the_next_request() -> None:
    async with front(*RULES) as f, f.caller() as caller:
        for action, status in (("allow", 200), ("deny", 403), ("allow", 200)):
            assert (await ask(caller, request("GET /x"))).status == 200
            permission = {"Action": action, "HTTP": {"PathPrefix": "/y"}}
            rule = {"SourceName": "web", "DestinationName": "db", "Permissions": [permission]}
            f.mesh.policy.publish(policy_of([rule], "db", default_allow=True))
            assert (await ask(caller, request("GET /y"))).status == status


async def test_a_slow_answer_is_no_idle_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 0.05)

    async def slow(side: AppSide, asked: Reached) -> None:
        await trio.sleep(0.2)
        await say_ok(side, asked)

    async with front(*RULES, answer=after_the_first(slow)) as f, f.caller() as caller:
        for _ in range(3):
            assert (await ask(caller, request("GET /"))).status == 200
        assert await caller.ended()
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value == "idle_timeout"


async def test_a_bug_in_a_step_ends_its_connection_loudly_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Front, received: bytes) -> None:
        raise ZeroDivisionError

    async with front(*RULES) as f, f.caller() as caller, f.caller() as other:
        for one in (caller, other):
            assert (await ask(one, request("GET /"))).status == 200
        faults = Faults()
        with monkeypatch.context() as patch:
            patch.setattr(Front, "request", fail)
            patch.setattr(f.mesh.db.events, "internal_error", faults.internal_error)
            await caller.send(request("GET /"))
            with trio.fail_after(10):
                assert await caller.reply() is None
        assert (await ask(other, request("GET /"))).status == 200
        assert [type(error) for _, _, error in faults.told] == [ZeroDivisionError]
        assert f.mesh.db.ledger.recent()[-1].reason.value == "internal_error"
