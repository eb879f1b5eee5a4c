"""The callers of the load notice what an app does to them, and count each as what it was."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.contract.federation import free_port
from tests.rotation.load import Load, load
from tests.rotation.mesh import echo
from tests.support.two_sidecars import until

RATE = 50.0
App = Callable[[trio.SocketStream], Awaitable[None]]


async def called(app: App, *, lasting: int = 0, patience: float = 10.0) -> Load:
    """Load on an app for a moment."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, app, listeners)
        ports = [listeners[0].socket.getsockname()[1]]
        async with load(ports, per_second=RATE, lasting=lasting, beat=0.01, patience=patience) as counted:
            with trio.fail_after(10):
                await until(lambda: counted.made >= 5)
        nursery.cancel_scope.cancel()
    return counted


async def test_what_is_answered_is_no_fault() -> None:
    counted = await called(echo, lasting=3)
    assert counted.faults == []
    assert counted.answered == counted.made == len(counted.latencies) >= 5
    assert counted.lasting == 3
    assert counted.words > 3
    assert counted.rate > 0


async def _closing(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def _resetting(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def _changing(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"old")


@pytest.mark.parametrize(
    ("app", "what"),
    [
        (_closing, "closed without an answer"),
        (_resetting, "Connection reset by peer"),
        (_changing, "b'old' for b'new'"),
    ],
)
async def test_a_connection_that_ends_without_its_echo_has_failed(app: App, what: str) -> None:
    counted = await called(app)
    assert len(counted.failed) == counted.made
    assert all(what in one for one in counted.failed)
    assert (counted.answered, counted.late) == (0, [])


async def test_a_refused_connection_has_failed_and_a_lasting_one_is_broken() -> None:
    port = free_port()
    async with load([port], per_second=RATE, lasting=1) as counted:
        await trio.sleep(0.1)
    assert counted.failed
    assert all("Connection refused" in one for one in (*counted.failed, *counted.broken))
    assert len(counted.broken) == 1


async def _answering_once(stream: trio.SocketStream) -> None:
    await stream.send_all(await stream.receive_some())
    await stream.receive_some()


async def test_a_lasting_connection_that_ends_later_is_a_broken_stream() -> None:
    counted = await called(_answering_once, lasting=2)
    assert len(counted.broken) == 2
    assert all("after 1 words: closed without an answer" in one for one in counted.broken)
    assert counted.failed == []


async def _silent(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_one_that_has_waited_too_long_is_late_and_has_not_failed() -> None:
    counted = await called(_silent, lasting=1, patience=0.2)
    assert len(counted.late) == counted.made + 1
    assert (counted.failed, counted.broken) == ([], [])


def children() -> set[str]:
    """Return the ids of this process's children, those included that have ended and were not waited for."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


async def test_a_block_that_fails_leaves_no_process_of_callers() -> None:
    before = children()
    with pytest.raises(ExceptionGroup) as failed:
        async with load([free_port()], per_second=RATE, lasting=0):
            raise LookupError("of the block")
    assert failed.group_contains(LookupError, match="of the block")
    assert not children() - before
