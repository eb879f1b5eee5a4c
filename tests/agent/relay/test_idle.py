"""The relay waits in trio's place: bytes wake no task, and tasks and timers wait for no byte."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.relay import idle
from agent.relay.relay import Relay, RelayClosed
from agent.relay.splice import READ
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.relayed_pairs import Wiring, relaying, wirings
from tests.support.socket_pairs import contexts_of

Ends = tuple[socket.socket, socket.socket]


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    count = 0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.fixture
async def wiring() -> AsyncIterator[Wiring]:
    root = Issuer.root()
    contexts: Contexts = contexts_of(root.leaf(), root)
    async with wirings(contexts) as make:
        yield make


@pytest.fixture
def no_fdinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(idle, "_FDINFO", tmp_path)


def echo(sock: socket.socket, times: int, after: Callable[[], None] | None = None) -> Callable[[int], None]:
    """Answer each byte with a byte, that many times; the other end does the same."""
    left = times

    def on_ready(_events: int) -> None:
        nonlocal left
        data = sock.recv(100)
        left -= 1
        if left > 0:
            sock.send(data)
        elif left == 0 and after is not None:
            after()

    return on_ready


@pytest.fixture
def ends() -> Iterator[Ends]:
    pair = socket.socketpair()
    yield pair
    for sock in pair:
        sock.close()


def failed(error: Exception) -> None:
    if not isinstance(error, RelayClosed):
        raise error


def ball(relay: Relay, ends: Ends, times: int, over: trio.Event) -> None:
    """Let a byte go to and fro between two descriptors, in the relay."""
    for sock in ends:
        sock.setblocking(False)
        relay.attach(sock.fileno(), echo(sock, times, over.set), failed).want(READ)
    ends[0].send(b"x")


async def test_bytes_are_moved_without_a_step_of_any_task(ends: Ends) -> None:
    over, steps = trio.Event(), Steps()
    with Relay() as relay, trio.fail_after(5):
        await trio.sleep(0.01)  # the first wait, which looks for trio's epoll
        trio.lowlevel.add_instrument(steps)
        ball(relay, ends, 500, over)
        await over.wait()
        trio.lowlevel.remove_instrument(steps)
    assert steps.count < 10


@pytest.mark.usefixtures("no_fdinfo")
async def test_where_trios_epoll_cannot_be_found_bytes_are_moved_all_the_same(ends: Ends) -> None:
    over = trio.Event()
    with Relay() as relay, trio.fail_after(5):
        await trio.sleep(0.01)
        ball(relay, ends, 500, over)
        await over.wait()


async def test_a_timer_and_another_descriptor_are_served_while_bytes_never_end(ends: Ends) -> None:
    ours, theirs = socket.socketpair()
    with Relay() as relay, trio.fail_after(5), ours, theirs:
        await trio.sleep(0.01)
        ball(relay, ends, 10**9, trio.Event())
        await trio.sleep(0.01)
        theirs.send(b"x")
        await trio.lowlevel.wait_readable(ours)
        await trio.to_thread.run_sync(lambda: None)
        await trio.sleep(0.01)


async def test_a_timer_ends_a_wait_without_any_byte() -> None:
    with Relay(), trio.fail_after(5):
        for _ in range(3):
            before = trio.current_time()
            await trio.sleep(0.05)
            assert trio.current_time() - before < 2


async def test_a_task_that_a_turn_wakes_runs_at_once(wiring: Wiring) -> None:
    """The end of a connection wakes its task, amid a wait that trio has begun for an hour."""
    wire = await wiring()
    with Relay() as relay, trio.fail_after(3600):
        async with relaying(relay, wire) as transfers:
            await trio.sleep(0.01)
            wire.peer_sock.close()
            wire.app.close()
        assert len(transfers) == 1


async def test_what_is_due_outside_of_a_turn_is_done_before_the_next_wait() -> None:
    called = trio.Event()
    with Relay() as relay, trio.fail_after(5):
        await trio.sleep(0.01)
        relay.after_turn(called.set)
        await called.wait()


async def plays(relay: Relay) -> None:
    """Have a relay move bytes, and wait for them."""
    over, ends = trio.Event(), socket.socketpair()
    with ends[0], ends[1], trio.fail_after(5):
        await trio.sleep(0.01)
        ball(relay, ends, 100, over)
        await over.wait()


async def test_two_relays_of_one_run_both_move_bytes() -> None:
    """The second waits as any task does, also when the first has ended."""
    with Relay() as second_to_end:
        with Relay() as first_to_end:
            await plays(second_to_end)
            await plays(first_to_end)
        await plays(second_to_end)
    with Relay() as later:
        await plays(later)


def test_a_bug_in_what_is_due_ends_the_run() -> None:
    def bug() -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        with Relay() as relay:
            await trio.sleep(0.01)
            relay.after_turn(bug)
            await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)


async def test_a_virtual_clock_jumps_as_without_a_relay(
    autojump_clock: trio.testing.MockClock, ends: Ends
) -> None:
    with Relay() as relay:
        over = trio.Event()
        ball(relay, ends, 100, over)
        await over.wait()
        assert trio.current_time() == 0
        await trio.sleep(1000)
        assert trio.current_time() == 1000
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_an_idle_relay_does_not_turn() -> None:
    class Counting(Relay):
        turns = 0

        def _turn(self, seconds: float = 0) -> int:
            self.turns += 1
            return super()._turn(seconds)

    with Counting() as relay:
        await trio.sleep(0.01)
        before = relay.turns
        await trio.sleep(0.1)
        assert relay.turns - before < 20


def test_the_epoll_that_watches_a_descriptor_is_found(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell = os.eventfd(0)
    try:
        with select.epoll() as one, select.epoll() as other:
            one.register(ends[0].fileno(), READ)
            assert idle.epoll_of(bell) is None
            other.register(bell, READ)
            assert idle.epoll_of(bell) == other.fileno()
            monkeypatch.setattr(idle, "_FDINFO", tmp_path)
            (tmp_path / "3").mkdir()  # what cannot be read is no epoll of ours
            assert idle.epoll_of(bell) is None
    finally:
        os.close(bell)
