"""The app's side of an HTTP connection: reused only when nothing is left open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from agent.base.address import TcpAddress
from agent.base.latest import Latest
from agent.connections.ledger import Ledger
from agent.connections.records import Direction
from agent.inbound.app_connection import AppConnection, AppConnections
from agent.relay.splice import Progress
from agent.relay.streams import StreamBroken
from tests.scenarios.recorder import Recorder
from tests.support.http_services import http_service
from tests.support.late_dials import late_dials
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import now

ASK = b"GET / HTTP/1.1\r\nHost: db\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def connected() -> Iterator[tuple[AppConnection, socket.socket]]:
    near, far = tcp_pair()
    with far:
        app = AppConnection(near, Progress(), last=False)
        yield app, far
        app.close()


async def hear(app: AppConnection) -> None:
    assert await app.stream.receive() == ANSWER
    app.answered = app.keep_alive = True


async def test_an_ended_exchange_leaves_it_idle() -> None:
    with connected() as (app, far):
        for _ in range(2):
            await app.send(ASK, last=True)
            far.send(ANSWER)
            await hear(app)
            assert app.idle
            app.next_exchange(last=False)
        assert app.used


async def test_the_next_exchange_has_to_end_too() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        far.send(ANSWER)
        await hear(app)
        app.next_exchange(last=False)
        assert not app.idle


@pytest.mark.parametrize("more", [ANSWER, b"x", None])
async def test_one_that_said_more_or_left_is_not_idle(more: bytes | None) -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        far.send(ANSWER)
        await hear(app)
        far.send(more) if more else far.shutdown(socket.SHUT_WR)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not app.idle


async def test_a_request_that_was_cut_short_is_never_idle() -> None:
    with connected() as (app, far):
        with trio.move_on_after(0.05):
            await app.send(b"x" * 50_000_000, last=True)
        far.send(ANSWER)
        await hear(app)
        assert not app.idle


async def test_one_that_has_part_of_a_request_is_not_idle() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=False)
        far.send(ANSWER)
        await hear(app)
        assert not app.idle


async def test_one_on_which_a_side_has_said_that_it_ends_is_not_idle_and_closed_in_order() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        far.recv(100)
        far.send(ANSWER)
        await hear(app)
        app.keep_alive = False
        assert not app.idle
        app.close()
        await trio.lowlevel.wait_readable(far)
        assert far.recv(100) == b""


async def test_closing_amid_an_exchange_is_a_reset() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        await trio.testing.wait_all_tasks_blocked(0.01)
        far.recv(100)
        app.close()
        await trio.lowlevel.wait_readable(far)
        with pytest.raises(ConnectionResetError):
            far.recv(100)


async def test_closing_an_idle_one_is_an_end() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        far.recv(100)
        far.send(ANSWER)
        await hear(app)
        app.close()
        await trio.lowlevel.wait_readable(far)
        assert far.recv(100) == b""


async def test_one_that_carries_a_body_is_never_idle_again() -> None:
    with connected() as (app, far):
        await app.send(ASK, last=True)
        far.send(ANSWER)
        await hear(app)
        app.next_exchange(last=True)
        await app.send(ASK, last=True)
        far.send(ANSWER)
        await hear(app)
        assert not app.idle


async def test_only_a_whole_request_that_went_at_once_was_sent() -> None:
    with connected() as (app, _):
        sent = []
        for data, last in ((ASK, False), (b"body", True), (b"x" * 50_000_000, True)):
            unsent = app.send_nowait(data, last=last)
            sent.append((bool(unsent), app.sent))
        assert sent == [(False, False), (False, True), (True, False)]


async def test_a_break_is_told() -> None:
    with connected() as (app, far):
        far.close()
        await app.send(ASK, last=True)
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.next_exchange(last=False)
        with pytest.raises(StreamBroken):
            await app.send(ASK, last=True)


async def test_a_dial_that_has_to_wait_is_left_to_the_task_and_closed_if_no_request_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dials = late_dials(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as server:
        service = replace(http_service(Latest()), app=TcpAddress(*server.getsockname()))
        apps = AppConnections(service, Ledger(now, Recorder()).begin(Direction.INBOUND, "", lambda: None))
        assert apps.dial_at_once(last=True) is None
        apps.drop_begun()
        assert dials[0].sock.fileno() == -1
        assert apps.dial_at_once(last=True) is None
        app = await apps.take(last=True)
        assert app.stream.sock is dials[1].sock
        assert len(dials) == 2
        apps.drop()
        assert dials[1].sock.fileno() == -1
