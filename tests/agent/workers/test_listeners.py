"""One address, several who accept: bound by one process, served wherever its sockets are handed to."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.admission import Admission, Overflow, Slot
from agent.net.bind import BindFailed, Bound, another, bind
from agent.net.kept import KeptSockets
from agent.net.listeners import RETRY_SECONDS, Listeners, Opening
from agent.workers import listeners
from agent.workers.listeners import HandedListeners, SharedListeners
from agent.workers.messages import HandedSockets, Withdrawn, decode
from agent.workers.publisher import Publisher, Subscriber
from tests.agent.net.test_listeners import Heard, hello, refuses
from tests.support.descriptor_store import Store

ANY = TcpAddress("127.0.0.1", 0)


async def greet(sock: socket.socket, _place: Slot) -> None:
    sock.send(b"hello")
    sock.close()


def opening(address: Address, *inherited: socket.socket) -> Opening:
    return Opening(purpose="x", address=address, handler=greet, inherited=inherited)


def none_left(bound: Bound) -> Bound:
    """Fail as `another` does without descriptors."""
    raise BindFailed(bound.purpose, bound.address, OSError(errno.EMFILE, "Too many open files"))


class Control:
    """The control process's side."""

    def __init__(self, nursery: trio.Nursery, kept: KeptSockets | None = None, workers: int = 2) -> None:
        self.publisher = Publisher().start(nursery)
        self.heard = Heard()
        self.listeners = SharedListeners(self.heard, self.publisher, workers=workers, kept=kept)
        self.reader = Subscriber(self.publisher)

    def told(self) -> list[object]:
        heard: list[object] = []
        while (item := self.reader.next()) is not None:
            heard.append(decode(item[1]))
        return heard

    def copies(self, key: str, slot: int) -> list[socket.socket]:
        """As they arrive in another process, where Python takes them for blocking ones."""
        return [socket.socket(fileno=os.dup(sock.fileno())) for sock in self.listeners.sockets(key, slot)]


@asynccontextmanager
async def controlled(kept: KeptSockets | None = None, workers: int = 2) -> AsyncIterator[Control]:
    async with trio.open_nursery() as nursery:
        made = Control(nursery, kept, workers)
        yield made
        await made.listeners.close_all()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def worker() -> AsyncIterator[HandedListeners]:
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        made = HandedListeners(Heard()).serve_in(loops, connections)
        yield made
        await made.close_all()
        made.close_handed()
        connections.cancel_scope.cancel()


async def test_a_worker_knows_its_own_listeners_as_what_must_not_be_dialled() -> None:
    async with controlled() as c, worker() as w:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        await w.add("a", opening(ANY))
        await w.hand("a", c.copies("a", 0))
        place = c.listeners.sockets("a", 0)[0].getsockname()
        assert w.own.of_upstreams(socket.AF_INET, place) == "x"
        await w.withdraw("a")
        assert w.own.of_upstreams(socket.AF_INET, place) == ""


async def test_each_worker_has_its_own_socket_and_its_successor_the_same() -> None:
    async with controlled() as c:
        await c.listeners.bind("a", opening(ANY))
        assert c.listeners.sockets("a", 0) == []  # not open yet
        c.listeners.open()
        assert c.told() == [HandedSockets(key="a", purpose="x")]
        (zero,), (one,) = c.listeners.sockets("a", 0), c.listeners.sockets("a", 1)
        assert zero.getsockname() == one.getsockname()
        assert zero.fileno() != one.fileno()
        assert c.listeners.sockets("a", 0) == [zero]
        c.listeners.give_up(0)
        assert zero.fileno() == -1
        assert c.listeners.sockets("a", 1) == [one]
        await c.listeners.close("a")
        assert one.fileno() == -1
        assert c.told() == [Withdrawn(key="a")]
        assert c.listeners.sockets("a", 0) == []
    assert c.heard.told == [("listening", "x"), ("ended", "x")]


async def test_a_worker_without_sockets_for_want_of_descriptors_gets_them_later_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with controlled() as c, trio.open_nursery() as nursery:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        (zero,) = c.listeners.sockets("a", 0)
        c.told()
        monkeypatch.setattr(listeners, "another", none_left)
        assert [c.listeners.sockets("a", 1), c.listeners.sockets("a", 1)] == [[], []]
        assert c.heard.told == [("listening", "x"), ("failed", "worker 1")]
        assert (c.listeners.problems, len(c.listeners.warnings)) == ([], 1)
        assert "worker 1: cannot listen on 127.0.0.1:" in c.listeners.warnings[0]
        nursery.start_soon(c.listeners.retry_failed)
        await trio.sleep(3 * RETRY_SECONDS)
        assert [c.told(), c.heard.told[2:]] == [[], []]
        monkeypatch.setattr(listeners, "another", another)
        await trio.sleep(2 * RETRY_SECONDS)
        assert c.told() == [HandedSockets(key="a", purpose="x")]  # asks each worker to take its own anew
        assert [len(c.listeners.sockets("a", 1)), c.listeners.sockets("a", 0)] == [1, [zero]]
        assert c.listeners.warnings == []
        nursery.cancel_scope.cancel()


async def test_where_no_worker_has_sockets_the_agent_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    async with controlled() as c:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        monkeypatch.setattr(listeners, "another", none_left)
        assert [c.listeners.sockets("a", slot) for slot in (0, 1)] == [[], []]
        assert (len(c.listeners.problems), c.listeners.warnings) == (1, [])
        c.listeners.give_up(0)  # it is down; the other one still has none
        assert (len(c.listeners.problems), c.listeners.warnings) == (1, [])
        await c.listeners.close("a")
        assert (c.listeners.problems, c.listeners.warnings) == ([], [])


async def test_of_two_addresses_the_first_socket_is_closed_where_the_second_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Bound] = []

    def only_one(bound: Bound) -> Bound:
        if made:
            return none_left(bound)
        made.append(another(bound))
        return made[0]

    async with controlled() as c:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        found = c.listeners.get("a")
        assert found is not None
        found.bound = [*found.bound, await bind(ANY, "x", shareable=True)]
        monkeypatch.setattr(listeners, "another", only_one)
        assert c.listeners.sockets("a", 0) == []
        assert made[0].sock.fileno() == -1


async def test_the_address_of_another_agent_is_not_shared() -> None:
    """SO_REUSEPORT alone would split the callers of two agents of one user."""
    async with controlled() as c, controlled() as other:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        (sock,) = c.listeners.sockets("a", 0)
        await other.listeners.bind("a", opening(TcpAddress(*sock.getsockname())))
        assert "in use" in other.listeners.problems[0]


async def test_unix_and_inherited_sockets_are_one_for_all(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made_by_systemd:
        async with controlled() as c:
            await c.listeners.bind("unix", opening(UnixAddress(str(tmp_path / "s"))))
            await c.listeners.bind("public", opening(ANY, made_by_systemd))
            c.listeners.open()
            for key in ("unix", "public"):
                assert c.listeners.sockets(key, 0) == c.listeners.sockets(key, 1) != []


async def test_workers_let_callers_in_and_who_waits_for_a_dead_one_is_served_by_the_next() -> None:
    async with controlled() as c:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        port = c.listeners.sockets("a", 0)[0].getsockname()[1]
        waiting = await trio.open_tcp_stream("127.0.0.1", port)  # nobody accepts yet
        async with worker() as w:
            await w.add("a", opening(ANY))
            await w.hand("a", c.copies("a", 0))
            async with waiting:
                assert await waiting.receive_some() == b"hello"
        async with worker() as successor:
            await successor.hand("a", c.copies("a", 0))  # before it is known to be wanted
            await successor.add("a", opening(ANY))
            assert await hello(port) == b"hello"


async def test_what_is_closed_and_wanted_again_needs_no_other_sockets() -> None:
    async with controlled() as c, worker() as w:
        await c.listeners.bind("a", opening(ANY))
        c.listeners.open()
        port = c.listeners.sockets("a", 0)[0].getsockname()[1]
        await w.bind("a", opening(ANY))
        await w.hand("a", c.copies("a", 0))
        await w.close("a")
        await w.add("a", opening(ANY))
        assert await hello(port) == b"hello"


async def test_other_sockets_take_the_place_of_the_former_and_withdrawn_ones_refuse() -> None:
    async with controlled() as c, worker() as w:
        ports = []
        await w.add("a", opening(ANY))
        for _ in range(2):
            await c.listeners.add("a", opening(ANY))
            c.listeners.open()
            await w.hand("a", c.copies("a", 0))
            ports.append(c.listeners.sockets("a", 0)[0].getsockname()[1])
            assert await hello(ports[-1]) == b"hello"
            found = w.get("a")
            assert found is not None
            assert [bound.sock.getblocking() for bound in found.bound] == [False]
            await c.listeners.close("a")
        assert refuses(ports[0])
        assert not refuses(ports[1])  # still ours
        await w.withdraw("a")
        await w.withdraw("a")
        assert refuses(ports[1])
        found = w.get("a")
        assert found is not None
        assert found.listening is False


async def test_of_a_worker_only_want_of_room_is_told() -> None:
    heard = Heard()
    events = HandedListeners(heard).events
    events.listening("x", "y")
    events.listening_ended("x", "y")
    events.listening_failed("x", "y")
    assert heard.told == []
    events.overflowed(Admission(1), Overflow.CONNECTIONS)
    events.exhausted(OSError(24, "x"))
    assert [event for event, _ in heard.told] == ["overflowed", "exhausted"]


def inode(sock: socket.socket) -> int:
    """Return what two descriptors of one socket have in common."""
    return os.fstat(sock.fileno()).st_ino


async def test_the_sockets_of_each_worker_are_kept_and_go_to_the_same_worker_of_the_next_process() -> None:
    store = Store()
    with store.process() as kept:
        async with controlled(kept) as c:
            await c.listeners.bind("a", opening(ANY))
            c.listeners.open()
            before = [inode(c.listeners.sockets("a", slot)[0]) for slot in (0, 1)]
            there = TcpAddress(*c.listeners.sockets("a", 0)[0].getsockname())
            c.listeners.successor = True
    for workers in (2, 1, 3):
        with store.process() as kept:
            async with controlled(kept, workers) as c:
                await c.listeners.bind("a", opening(there))
                c.listeners.open()
                found = [[inode(one) for one in c.listeners.sockets("a", slot)] for slot in range(workers)]
                if workers == 1:
                    assert found == [before]  # two queues, one worker
                else:
                    assert [numbers[0] for numbers in found[:2]] == before
                assert c.heard.told == [("listening", "x")]
                c.listeners.successor = True
    with store.process() as kept:
        async with controlled(kept, 3) as c:
            await c.listeners.bind("a", opening(there))
            c.listeners.open()
            assert [len(c.listeners.sockets("a", slot)) for slot in range(3)] == [1, 1, 1]
            c.listeners.give_up(1)
            assert len(store.kept) == 2
            assert inode(c.listeners.sockets("a", 1)[0]) not in before
            await c.listeners.close("a")
            assert store.kept == {}


async def test_one_socket_of_an_agent_without_workers_is_kept_for_all_workers() -> None:
    store, heard = Store(), Heard()
    with store.process() as kept:
        alone = Listeners(heard, kept)
        await alone.bind("a", opening(ANY))
        (bound,) = alone.all()["a"].bound
        bound.listen()
        kept.keep(bound)
        there, number = TcpAddress(*bound.sock.getsockname()), inode(bound.sock)
        alone.release()
    with store.process() as kept:
        async with controlled(kept) as c:
            await c.listeners.bind("a", opening(there))
            c.listeners.open()
            assert [inode(*c.listeners.sockets("a", slot)) for slot in (0, 1)] == [number, number]
    store.close()
