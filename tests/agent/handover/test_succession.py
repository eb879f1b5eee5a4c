"""A life between the program before it and the one after it."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.handover.predecessor import Predecessor
from agent.handover.succession import Succession
from agent.handover.upgrade import Accepting, Drain, TakeOver, Upgrade, hear, tell
from agent.process.systemd import Notifier
from agent.workers.channel import Channel
from tests.agent.handover.test_upgrade import Begun, Heard
from tests.support.agent_in_process import App, Caller, answers, exit_of, keep_in, public_life
from tests.support.descriptor_store import Store


def ends() -> tuple[Channel, Channel]:
    """Return both ends of a channel."""
    ours, theirs = socket.socketpair()
    return Channel(ours), Channel(theirs)


async def test_the_old_program_serves_what_it_has_and_leaves_the_callers_to_the_new_one(
    nursery: trio.Nursery, store: Store
) -> None:
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address, leave_seconds="300", drain_seconds="0")
    caller = Caller(one.bench.well())
    new: list[Channel] = []

    async def spawn(end: socket.socket) -> Begun:
        new.append(Channel(end.dup()))
        await tell(new[0], Accepting(7))
        return Begun()

    notifier = Notifier("/nowhere")
    upgrade = Upgrade(notifier=notifier, spawn=spawn, descriptors=list, events=one.bench.agent.log)
    one.cycle.succession = Succession(notifier=notifier, upgrade=upgrade)
    with store.process() as kept:
        keep_in(one, kept)
        async with trio.open_nursery() as inner:
            inner.start_soon(one.run)
            await one.ready()
            address = one.address()
            await caller.connect(address)
            one.cycle.upgrade()
            await one.until(lambda: "draining" in one.bench.events())
            assert await caller.say(b"still") == b"still"  # though a drain would have no time
            assert notifier.muted
            caller.close()
        assert one.code is ExitCode.CLEAN
    assert answers(address[1])  # in the queue
    new[0].close()


async def test_an_upgrade_that_fails_leaves_a_complaint_and_the_old_program_serving(
    nursery: trio.Nursery,
) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def spawn(_end: socket.socket) -> Begun:
        return Begun(1)

    notifier = Notifier("/nowhere")
    upgrade = Upgrade(notifier=notifier, spawn=spawn, descriptors=list, events=one.bench.agent.log)
    one.cycle.succession = Succession(notifier=notifier, upgrade=upgrade)
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        one.cycle.upgrade()
        await one.until(lambda: one.bench.agent.complaint)
        assert "it ended with code 1" in one.bench.agent.complaint
        assert answers(one.address()[1])
        one.cycle.drain("the test")


async def test_an_upgrade_that_is_asked_for_during_a_start_follows_it(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    begun: list[Phase] = []

    async def spawn(_end: socket.socket) -> Begun:
        begun.append(one.bench.control.phase)
        return Begun(1)

    notifier = Notifier("/nowhere")
    upgrade = Upgrade(notifier=notifier, spawn=spawn, descriptors=list, events=one.bench.agent.log)
    one.cycle.succession = Succession(notifier=notifier, upgrade=upgrade)
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await trio.testing.wait_all_tasks_blocked()
        one.cycle.upgrade()
        assert "upgrade.failed" not in one.bench.events()
        one.bench.well()
        await one.until(lambda: one.bench.agent.complaint)
        assert begun == [Phase.SERVING]
        one.cycle.drain("the test")


async def test_the_new_program_answers_once_the_old_one_gives_way(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    old, theirs = ends()
    notifier = Notifier()
    notifier.muted = True
    one.cycle.succession = Succession(notifier=notifier, predecessor=Predecessor(theirs))
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        word, _ = await hear(old)
        assert isinstance(word, Accepting)
        assert answers(one.address()[1])
        assert [one.bench.control.phase, notifier.muted] == [Phase.STARTING, True]
        await tell(old, TakeOver())
        await one.ready()
        assert [notifier.muted] == [False]
        one.cycle.drain("the test")
        assert await hear(old) == (Drain(5), [])
        assert [one.code] == [None]  # what is left of the old program would end with it
        old.close()
    assert one.code is ExitCode.CLEAN
    theirs.close()


async def test_without_the_old_program_the_new_one_does_not_take_over(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    old, theirs = ends()
    one.cycle.succession = Succession(notifier=Notifier(), predecessor=Predecessor(theirs))
    old.close()
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).code is ExitCode.UNAVAILABLE
    assert "the old program" in exit_of(caught).message
    theirs.close()


async def test_when_no_upgrade_can_begin_the_reason_is_given() -> None:
    upgrade = Upgrade(notifier=Notifier("/x"), spawn=_never, descriptors=list, events=Heard())
    one = Succession(notifier=Notifier(), upgrade=upgrade)
    assert one.refusal(Phase.SERVING) == ""
    assert one.refusal(Phase.STARTING) == "the agent is starting"
    upgrade.busy = True
    assert one.refusal(Phase.SERVING) == "one is under way"
    assert "no service manager" in Succession(notifier=Notifier()).refusal(Phase.SERVING)
    assert not Succession(notifier=Notifier()).due


async def _never(_end: socket.socket) -> Begun:
    raise AssertionError


async def test_the_older_ones_are_passed_the_time_and_outlived(
    autojump_clock: trio.testing.MockClock,
) -> None:
    old, theirs = ends()
    one = Succession(notifier=Notifier(), predecessor=Predecessor(theirs))
    await one.limit(3)
    assert await hear(old) == (Drain(3), [])
    began = trio.current_time()
    await one.outlive(3)
    assert trio.current_time() - began == 13
    old.close()
    with pytest.raises(Exit):
        await one.take_over()
    theirs.close()
