"""Requests with bodies, and several at once, in the relay's loop, and where the task goes on instead."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator

import pytest
import trio

from agent.base.address import TcpAddress
from agent.connections.reauthorize import rejudge
from agent.inbound.app_connection import AppConnection
from agent.inbound.exchange import Exchange
from agent.net.proxy_protocol import SIGNATURE
from agent.policy.http_mode import HttpMode
from tests.scenarios.http_app import AppSide, HttpApp, Reached, say_ok
from tests.scenarios.http_front import Caller, Front, Reply, allow, deny, front, policy, request
from tests.support.exchanges import watched_exchanges
from tests.support.late_dials import late_dials
from tests.support.two_sidecars import mesh, now, until

RULES = deny(PathPrefix="/no"), allow(PathPrefix="/")
BODY = random.Random(16).randbytes(300_000)


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    return watched_exchanges(monkeypatch)


def post(body: bytes, target: str = "/") -> bytes:
    return request(f"POST {target}", f"Content-Length: {len(body)}", body=body)


async def reply(caller: Caller) -> Reply:
    with trio.fail_after(20):
        found = await caller.reply()
    assert found is not None
    return found


@contextlib.asynccontextmanager
async def begun(f: Front, exchanges: list[Exchange]) -> AsyncIterator[Caller]:
    """A caller whose first request, which is the task's, has been answered and counts for nothing."""
    async with f.caller() as caller:
        answer, f.app.answer = f.app.answer, say_ok
        await caller.send(post(b"hi", "/first"))
        assert (await reply(caller)).text == "ok"
        f.app.answer = answer
        f.app.reached.clear()
        f.app.connections = f.mesh.app.accepts = 0
        exchanges.clear()
        yield caller


def bodies(f: Front) -> list[bytes]:
    return [reached.body for reached in f.app.reached]


@pytest.mark.parametrize("size", [1, 4096, 16_384, 65_536])
async def test_requests_with_bodies_take_no_exchange_of_the_task(
    size: int, exchanges: list[Exchange]
) -> None:
    async with front(*RULES) as f, begun(f, exchanges) as caller:
        for _ in range(3):
            await caller.send(post(BODY[:size]))
            assert (await reply(caller)).text == "ok"
        assert exchanges == []
        assert bodies(f) == [BODY[:size]] * 3
        assert f.mesh.app.accepts == 3
        assert f.mesh.db.ledger.requests() == {"permission_allow": 4}
        (connection,) = f.mesh.db.ledger.live()
        assert connection.request is None


async def test_a_body_that_comes_in_parts_takes_none_either(exchanges: list[Exchange]) -> None:
    raw = post(BODY[:1000])
    head = raw[:-1000]
    async with front(*RULES) as f, begun(f, exchanges) as caller:
        for place in (len(head), len(head) + 1, len(raw) - 1):
            await caller.send(raw[:place])
            await until(lambda: len(f.app.reached) == f.mesh.app.accepts)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await caller.send(raw[place:])
            assert (await reply(caller)).text == "ok"
        assert exchanges == []
        assert bodies(f) == [BODY[:1000]] * 3


async def test_requests_that_come_at_once_are_answered_in_their_order(exchanges: list[Exchange]) -> None:
    async def name(side: AppSide, asked: Reached) -> None:
        await side.body(asked)
        await side.ok(asked.target.encode() + asked.body)

    raw = [request("GET /0"), request("GET /1"), post(b"hi", "/2"), post(b"", "/3"), post(b"ho", "/4")]
    async with front(*RULES, answer=name) as f, begun(f, exchanges) as caller:
        await caller.send(b"".join(raw))
        assert [(await reply(caller)).text for _ in raw] == ["/0", "/1", "/2hi", "/3", "/4ho"]
        assert exchanges == []
        assert f.app.connections == 2  # of which each ends with its body
        assert [reached.last for reached in f.app.reached] == [False, False, True, False, True]


async def test_of_requests_that_come_at_once_each_is_judged_by_itself(exchanges: list[Exchange]) -> None:
    raw = [request("GET /0"), post(b"hi", "/no"), request("GET /1"), request("GET /no"), post(b"ho", "/2")]
    async with front(*RULES) as f, begun(f, exchanges) as caller:
        await caller.send(b"".join(raw))
        assert [(await reply(caller)).status for _ in raw] == [200, 403, 200, 403, 200]
        assert [reached.target for reached in f.app.reached] == ["/0", "/1", "/2"]


async def test_a_change_of_intentions_judges_what_came_with_an_allowed_request(
    exchanges: list[Exchange],
) -> None:
    go_on = trio.Event()

    async def wait(side: AppSide, asked: Reached) -> None:
        await go_on.wait()
        await say_ok(side, asked)

    async with front(*RULES, answer=wait) as f, begun(f, exchanges) as caller:
        await caller.send(post(b"hi", "/1") + request("GET /2"))
        await until(lambda: len(f.app.reached) == 1)
        f.mesh.policy.publish(policy(deny(PathExact="/2"), allow(PathPrefix="/")))
        go_on.set()
        assert [(await reply(caller)).status for _ in range(2)] == [200, 403]
        assert [reached.target for reached in f.app.reached] == ["/1"]


class Reading:
    """An app that reads its body and answers nothing; `broken` once its connection was reset meanwhile."""

    def __init__(self) -> None:
        self.broken = trio.Event()

    async def __call__(self, side: AppSide, asked: Reached) -> None:
        try:
            await side.body(asked)
        except trio.BrokenResourceError:
            self.broken.set()
            raise


async def test_a_change_of_intentions_cuts_a_request_whose_body_is_still_coming(
    exchanges: list[Exchange],
) -> None:
    app = Reading()
    async with front(*RULES, answer=app) as f, begun(f, exchanges) as caller:
        await caller.send(post(BODY[:1000], "/1")[:-1])
        await until(lambda: len(f.app.reached) == 1)
        contexts = f.mesh.db.contexts.value
        judged = rejudge(f.mesh.db.ledger, policy(deny(PathExact="/1")), contexts, now(), too_old_since=None)
        assert judged.closed == 1
        with trio.fail_after(10):
            await app.broken.wait()
            assert await caller.reply() is None
            await f.mesh.db.ledger.empty()
        assert exchanges == []


async def test_an_app_that_reads_slowly_gets_every_byte(exchanges: list[Exchange]) -> None:
    body = BODY * 40

    async def slowly(side: AppSide, asked: Reached) -> None:
        await until(lambda: bool(exchanges))  # the kernel takes no more, and the task waits
        await say_ok(side, asked)

    async with front(*RULES, answer=slowly) as f, begun(f, exchanges) as caller:
        await caller.send(post(body))
        assert (await reply(caller)).text == "ok"
        assert bodies(f) == [body]
        await caller.send(request("GET /next"))
        assert (await reply(caller)).text == "ok"
        assert len(exchanges) == 1


async def test_an_app_that_answers_instead_of_reading_on_is_heard(exchanges: list[Exchange]) -> None:
    async def impatient(side: AppSide, asked: Reached) -> None:
        await until(lambda: bool(exchanges))  # bytes that it does not take are waiting for it
        await side.say("HTTP/1.1 413 Too Large", "Content-Length: 3", body=b"no!")
        await trio.sleep_forever()

    async with front(*RULES, answer=impatient) as f, begun(f, exchanges) as caller:
        with trio.fail_after(20):
            await caller.send(post(BODY * 40))
        early = await reply(caller)
        assert (early.status, early.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("amid", [False, True])
async def test_an_app_that_hangs_up_is_502(amid: bool, exchanges: list[Exchange]) -> None:
    async def hang_up(side: AppSide, asked: Reached) -> None:
        if not amid:
            await side.body(asked)
        raise trio.EndOfChannel

    async with front(*RULES, answer=hang_up) as f, begun(f, exchanges) as caller:
        await caller.send(post(BODY[:1000])[: -1 if amid else None])
        refused = await reply(caller)
        assert (refused.status, refused.headers["connection"]) == (502, "close")
        assert "(app_closed)" in refused.text
        assert f.mesh.db.ledger.requests() == {"permission_allow": 2, "app_closed": 1}


async def test_a_body_that_is_cut_off_is_400_and_its_app_reset(exchanges: list[Exchange]) -> None:
    app = Reading()
    async with front(*RULES, answer=app) as f, begun(f, exchanges) as caller:
        await caller.send(post(BODY[:1000])[:-1])
        await until(lambda: len(f.app.reached) == 1)
        await caller.stream.send_end()
        refused = await reply(caller)
        assert (refused.status, "(request_cut_off)" in refused.text) == (400, True)
        with trio.fail_after(10):
            await app.broken.wait()


async def test_a_connection_that_had_a_body_is_never_kept_whatever_the_app_does(
    exchanges: list[Exchange],
) -> None:
    """The app was told to end it, and is let end first: TIME_WAIT would use our ports up."""
    ended: list[str] = []

    async def keep(side: AppSide, asked: Reached) -> None:
        await say_ok(side, asked)
        assert await side.stream.receive_some() == b""
        ended.append(asked.target)

    async with front(*RULES, answer=keep) as f:
        async with begun(f, exchanges) as caller:
            for number in range(3):
                await caller.send(post(b"hi", f"/{number}"))
                assert (await reply(caller)).text == "ok"
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert ended == [f"/{before}" for before in range(number)]
            assert f.mesh.app.accepts == 3
        await until(lambda: len(ended) == 3)


async def test_a_connection_that_had_a_body_is_closed_once_the_app_has_ended_it(
    monkeypatch: pytest.MonkeyPatch, exchanges: list[Exchange]
) -> None:
    closed: list[AppConnection] = []
    close = AppConnection.close

    def closing(app: AppConnection) -> None:
        closed.append(app)
        close(app)

    monkeypatch.setattr(AppConnection, "close", closing)
    async with front(*RULES) as f, begun(f, exchanges) as caller:
        await caller.send(post(b"hi"))
        assert (await reply(caller)).text == "ok"
        await until(lambda: len(closed) == 2)


async def test_a_dial_that_has_to_wait_is_the_tasks_and_no_second_one_is_made(
    monkeypatch: pytest.MonkeyPatch, exchanges: list[Exchange]
) -> None:
    late_dials(monkeypatch)
    async with front(*RULES) as f, begun(f, exchanges) as caller:
        for number in range(1, 4):
            await caller.send(post(b"hi", f"/{number}"))
            assert (await reply(caller)).text == "ok"
            assert len(exchanges) == number
        await caller.send(post(b"hi", "/no"))
        assert (await reply(caller)).status == 403
        assert f.mesh.app.accepts == 3


async def test_an_app_behind_a_name_is_dialled_by_the_task(exchanges: list[Exchange]) -> None:
    async with front(*RULES) as f:
        assert isinstance(f.mesh.app.address, TcpAddress)
        f.mesh.app.address = TcpAddress("localhost", f.mesh.app.address.port)
        async with begun(f, exchanges) as caller:
            await caller.send(post(b"hi"))
            assert (await reply(caller)).text == "ok"


@pytest.mark.parametrize("took", [True, False])
async def test_each_dial_begins_with_the_preamble(
    took: bool, monkeypatch: pytest.MonkeyPatch, exchanges: list[Exchange]
) -> None:
    heard: list[bytes] = []

    async def app(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"hi"):
            if not (more := await stream.receive_some()):
                return
            data += more
        heard.append(data)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    if not took:
        monkeypatch.setattr("agent.inbound.app_connection.took_at_once", lambda *_: False)
    async with mesh(app, http=HttpMode.IF_NEEDED) as m:
        m.proxy_protocol = True
        m.policy.publish(policy(*RULES))
        async with begun(Front(m, HttpApp()), exchanges) as caller:
            for _ in range(2):
                await caller.send(post(b"hi"))
                assert (await reply(caller)).text == "ok"
    assert [data.startswith(SIGNATURE) and data.count(SIGNATURE) for data in heard] == [1, 1, 1]
    assert len(exchanges) == (0 if took else 2)
