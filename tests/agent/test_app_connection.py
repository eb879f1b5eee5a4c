"""The app's side of an HTTP connection: reused only when nothing is left open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import h11
import pytest
import trio

from agent.app_connection import AppConnection
from agent.http_streams import StreamBroken
from agent.splice import Progress
from tests.agent.wires import tcp_pair

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def connected() -> Iterator[tuple[AppConnection, socket.socket]]:
    near, far = tcp_pair()
    with far:
        app = AppConnection(near, Progress())
        yield app, far
        app.close()


async def ask(app: AppConnection) -> None:
    await app.send(h11.Request(method="GET", target="/", headers=[("Host", "db")]), h11.EndOfMessage())


async def hear(app: AppConnection, size: int) -> None:
    while size:
        size -= len(await app.receive())
    while not isinstance(app.http.next_event(), h11.EndOfMessage):
        pass


async def test_an_ended_exchange_leaves_it_idle() -> None:
    with connected() as (app, far):
        for _ in range(2):
            await ask(app)
            far.send(ANSWER)
            await hear(app, len(ANSWER))
            assert app.idle
            app.next_exchange()
        assert app.used


@pytest.mark.parametrize("more", [ANSWER, b"x", None])
async def test_one_that_said_more_or_left_is_not_idle(more: bytes | None) -> None:
    with connected() as (app, far):
        await ask(app)
        far.send(ANSWER + (more or b""))
        if more is None:
            far.shutdown(socket.SHUT_WR)
        await hear(app, len(ANSWER + (more or b"")))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not app.idle


async def test_a_request_that_was_cut_short_is_never_idle() -> None:
    with connected() as (app, far):
        head = h11.Request(method="PUT", target="/", headers=[("Host", "db"), ("Content-Length", "50000000")])
        with trio.move_on_after(0.05):
            await app.send(head, h11.Data(data=b"x" * 50_000_000), h11.EndOfMessage())
        far.send(ANSWER)
        await hear(app, len(ANSWER))
        assert app.http.our_state is h11.DONE
        assert not app.idle


async def test_closing_amid_an_exchange_is_a_reset() -> None:
    with connected() as (app, far):
        await ask(app)
        await trio.testing.wait_all_tasks_blocked(0.01)
        far.recv(100)
        app.close()
        await trio.lowlevel.wait_readable(far)
        with pytest.raises(ConnectionResetError):
            far.recv(100)


async def test_closing_an_idle_one_is_an_end() -> None:
    with connected() as (app, far):
        await ask(app)
        far.recv(100)
        far.send(ANSWER)
        await hear(app, len(ANSWER))
        app.close()
        await trio.lowlevel.wait_readable(far)
        assert far.recv(100) == b""


async def test_a_break_is_told() -> None:
    with connected() as (app, far):
        far.close()
        await ask(app)
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.next_exchange()
        with pytest.raises(StreamBroken):
            await ask(app)
