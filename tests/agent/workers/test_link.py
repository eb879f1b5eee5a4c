"""One worker as its control process sees it, by a worker that is scripted word for word."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.base.latest import Latest
from agent.workers.channel import Channel
from agent.workers.link import HUNG_SECONDS, START_SECONDS, WorkerEnd, WorkerLink
from agent.workers.messages import Finish, HandedSockets, Message, Report, Welcome, Withdrawn, decode
from agent.workers.publisher import Publisher, SendOrder, Subscriber
from agent.workers.reports import AskedAgain, GatewaysWanted, Reported
from tests.support.agent_parts import START, settings
from tests.support.descriptors import no_descriptor_leaked
from tests.support.faults import Faults

WELCOME = Welcome(version="1", slot=0, workers=2, settings=settings())


def _itself(order: HandedSockets) -> HandedSockets:
    return order


class Far:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.channel = Channel(sock)

    async def order(self) -> Message:
        return decode((await self.channel.receive())[0])

    async def say(self, word: object) -> None:
        await self.channel.send(msgspec.json.encode(word))

    async def answer(self, live: int = 0, **told: object) -> Report:
        """The next report asked for."""
        asked = await self.order()
        assert isinstance(asked, Report), asked
        await self.say(report(asked.number, live, **told))
        return asked


def report(number: int, live: int = 0, **told: object) -> Reported:
    return Reported(number=number, pid=1, live=live, resident_bytes=1, metrics=[], counters={}, **told)  # type: ignore[arg-type]


class Bench:
    def __init__(self, nursery: trio.Nursery) -> None:
        ours, theirs = socket.socketpair()
        self.publisher = Publisher().start(nursery)
        self.far = Far(theirs)
        self.heard: list[object] = []
        self.served = 0
        self.sock = socket.socket()
        self.faults = Faults()
        self.link = WorkerLink(
            ours,
            Subscriber(self.publisher),
            pid=1,
            since=START,
            sockets=self.sockets,
            on_request=self.heard.append,
            on_serving=self.serving,
            faults=self.faults,
        )
        self._how: tuple[WorkerEnd, str] | None = None
        self._ended = trio.Event()

    def sockets(self, key: Hashable) -> list[socket.socket]:
        assert key == "public"
        return [self.sock]

    def serving(self) -> None:
        self.served += 1

    async def run(self) -> None:
        self._how = await self.link.run(WELCOME)
        self._ended.set()

    async def end(self) -> tuple[WorkerEnd, str]:
        await self._ended.wait()
        assert self._how is not None
        return self._how


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        made = Bench(nursery)
        nursery.start_soon(made.run)
        try:
            assert await made.far.order() == WELCOME
            yield made
        finally:
            made.far.channel.close()
            made.sock.close()
        await made.end()
        nursery.cancel_scope.cancel()


@pytest.fixture
def slow_clock() -> MockClock:
    """Time jumps, but not while a socket pair delivers."""
    return MockClock(autojump_threshold=0.02)


async def test_it_serves_once_it_has_answered_and_is_asked_again_and_again(slow_clock: MockClock) -> None:
    async with bench() as b:
        assert not b.link.serving
        await b.far.answer()
        await b.far.answer(3)
        assert (b.link.serving, b.served) == (True, 1)
        await b.far.answer(4)
        assert b.link.last is not None
        assert b.link.last.live in (3, 4)


async def test_the_board_comes_before_the_question_and_sockets_come_along(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.answer()
        told = HandedSockets(key="public", purpose="x")
        name = (HandedSockets, "public")
        b.publisher.post(
            name, SendOrder.SOCKETS, Latest(told), lambda order: order, withdrawal=Withdrawn(key="public")
        )
        async with trio.open_nursery() as nursery:
            answered: list[Reported | None] = []

            async def ask() -> None:
                answered.append(await b.link.report(rows=True))

            nursery.start_soon(ask)
            frame, descriptors = await b.far.channel.receive()
            assert decode(frame) == told
            with socket.socket(fileno=descriptors[0]):
                asked = await b.far.answer(5)
        assert asked.rows
        assert answered[0] is not None
        assert answered[0].live == 5
        b.publisher.withdraw(name)
        assert await b.far.order() == Withdrawn(key="public")


async def test_what_it_wants_is_passed_on(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.answer()
        await b.far.say(AskedAgain(3))
        await b.far.say(GatewaysWanted("dc2"))
        await b.far.answer()
        assert b.heard == [AskedAgain(3), GatewaysWanted("dc2")]


async def test_its_end_is_noticed_and_whoever_waits_for_it_is_told(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.answer(2)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await b.link.report(patience=1e9) is None

            nursery.start_soon(ask)
            assert isinstance(await b.far.order(), Report)
            b.far.channel.close()
        assert (await b.end())[0] is WorkerEnd.EXITED
        assert not b.link.serving
        assert await b.link.report() is None  # at once


@pytest.mark.parametrize("served", [True, False])
async def test_one_that_does_not_answer_is_given_up(served: bool, slow_clock: MockClock) -> None:
    async with bench() as b:
        if served:
            await b.far.answer()
        began = trio.current_time()
        assert (await b.end())[0] is WorkerEnd.HUNG
        waited = trio.current_time() - began
        assert (HUNG_SECONDS if served else START_SECONDS) <= waited < START_SECONDS + HUNG_SECONDS


async def test_one_that_talks_nonsense_is_given_up(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.channel.send(b'{"type":"Reported","number":"many"}')
        assert (await b.end())[0] is WorkerEnd.UNREADABLE


async def test_it_finishes_and_says_what_it_cut(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.answer(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.link.finish, Finish())
            while not isinstance(await b.far.order(), Finish):
                pass
            await b.far.say(report(0, cut=1))
        assert b.link.cut == 1


async def test_one_that_dies_instead_of_finishing_has_cut_all_it_had(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.far.answer(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.link.finish, Finish())
            while not isinstance(await b.far.order(), Finish):
                pass
            b.far.channel.close()
        assert b.link.cut == 2


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in secret"])
async def test_descriptors_of_a_worker_are_not_taken(announced: bool, slow_clock: MockClock) -> None:
    async with no_descriptor_leaked(), bench() as b:
        await b.far.answer()
        frame = msgspec.json.encode(AskedAgain(3))
        sock, descriptors = b.far.channel._sock, [b.sock.fileno()] * 8
        head = struct.pack("!IB", len(frame), 8 if announced else 0)
        before = len(list(Path("/proc/self/fd").iterdir()))
        socket.send_fds(sock, [head + frame], descriptors)
        if announced:
            assert (await b.end())[0] is WorkerEnd.EXITED
        else:
            await b.far.answer()
            assert b.heard == [AskedAgain(3)]
            assert len(list(Path("/proc/self/fd").iterdir())) == before
