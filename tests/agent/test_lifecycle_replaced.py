"""A restart: nothing is announced, who comes is served while the old connections end, and then waits."""

from __future__ import annotations

import os
import signal

import trio

from tests.support.agent_in_process import App, Caller, answers, keep_in, life, live, public_life
from tests.support.agent_parts import PROXY
from tests.support.descriptor_store import Store

MAINTENANCE = f"/v1/agent/service/maintenance/{PROXY}"


async def test_callers_are_served_until_the_connections_from_before_have_ended_and_then_wait(
    nursery: trio.Nursery, store: Store
) -> None:
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address, leave_seconds="300", drain_seconds="30")
    root = one.bench.well()
    old, late = Caller(root), Caller(root)
    with store.process() as kept:
        keep_in(one, kept)
        async with trio.open_nursery() as inner:
            inner.start_soon(one.run)
            await one.ready()
            address = one.address()
            await old.connect(address)
            assert await old.say(b"old") == b"old"
            os.kill(os.getpid(), signal.SIGUSR1)
            await one.until(lambda: "draining" in one.bench.events())
            await late.connect(address)
            assert await late.say(b"late") == b"late"
            old.close()
            late.close()
    assert not one.bench.consul.questions(MAINTENANCE)
    assert answers(address[1])  # in the queue


async def test_a_stop_leaves_nothing_with_the_service_manager_but_the_admin_endpoint(
    nursery: trio.Nursery, store: Store
) -> None:
    one = public_life(nursery)
    one.bench.well()
    with store.process() as kept:
        keep_in(one, kept)
        await live(one, trio.lowlevel.checkpoint)
    assert len(store.kept) == 1


async def test_what_no_listener_wants_any_more_is_given_up_once_it_serves(
    nursery: trio.Nursery, store: Store
) -> None:
    before = public_life(nursery)
    before.bench.well()
    with store.process() as kept:
        keep_in(before, kept)
        async with trio.open_nursery() as inner:
            inner.start_soon(before.run)
            await before.ready()
            address = before.address()
            before.cycle.drain("restart", replaced=True)
    assert answers(address[1])
    after = life(nursery)
    after.bench.well()
    with store.process() as kept:
        keep_in(after, kept)
        await live(after, trio.lowlevel.checkpoint)
    assert not answers(address[1])


async def test_without_a_service_manager_a_restart_is_a_stop(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        address = one.address()
        os.kill(os.getpid(), signal.SIGUSR1)
    assert not answers(address[1])
