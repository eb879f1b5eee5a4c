"""The end is announced: Consul sends no more callers, and those who come meanwhile are served."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from agent.base.exits import ExitCode
from agent.control.self_registration import STOPPING
from tests.support.agent_in_process import App, Caller, answers, free_port, live, public_life, upstream
from tests.support.agent_parts import PROXY

MAINTENANCE = f"/v1/agent/service/maintenance/{PROXY}"
CHECKS = "/v1/agent/checks"
LONG = "300"  # seconds; nothing waits for their end


async def test_while_it_leaves_callers_and_the_own_app_are_served_and_a_second_signal_ends_that(
    nursery: trio.Nursery,
) -> None:
    app, port = App(), free_port()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address, leave_seconds=LONG)
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    one.bench.consul.answer(MAINTENANCE, text="")
    caller = Caller(one.bench.well(upstream("db", port)))
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        os.kill(os.getpid(), signal.SIGTERM)
        await one.until(lambda: "leaving" in one.bench.events())
        (asked,) = one.bench.consul.questions(MAINTENANCE)
        assert asked.query == {"enable": "true", "reason": STOPPING}
        await caller.connect(one.address())
        assert await caller.say(b"late") == b"late"
        caller.close()
        assert answers(port)
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(10):
            while one.code is None:  # noqa: ASYNC110 - nothing to wait on
                await trio.sleep(0.01)
    assert not answers(port)
    events = one.bench.events()
    assert events.index("leaving") < events.index("draining") < events.index("listening.ended")


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_what_cannot_be_announced_is_not_waited_for(nursery: trio.Nursery, status: int) -> None:
    one = public_life(nursery, leave_seconds=LONG)
    one.bench.well()
    one.bench.consul.answer(CHECKS, {})
    one.bench.consul.answer(MAINTENANCE, text="no", status=status)
    with trio.fail_after(10):
        await live(one, trio.lowlevel.checkpoint)
    assert one.code is ExitCode.CLEAN
    assert one.bench.events().count("maintenance.failed") == 1


async def test_without_seconds_to_leave_nothing_is_announced(nursery: trio.Nursery) -> None:
    one = public_life(nursery, leave_seconds="0")
    one.bench.well()
    await live(one, trio.lowlevel.checkpoint)
    assert not one.bench.consul.questions(MAINTENANCE)


async def test_without_a_proxy_in_consul_that_is_said(nursery: trio.Nursery) -> None:
    one = public_life(nursery, service="web", service_addr="127.0.0.1:8080", leave_seconds=LONG)
    one.bench.well()
    with trio.fail_after(10):
        await live(one, trio.lowlevel.checkpoint)
    assert one.bench.events().count("maintenance.failed") == 1


async def test_a_start_takes_back_what_the_last_end_has_announced(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    one.bench.consul.answer(CHECKS, {f"_service_maintenance:{PROXY}": {"Notes": STOPPING}})
    one.bench.consul.answer(MAINTENANCE, text="")

    async def act() -> None:
        await one.until(lambda: "maintenance.ended" in one.bench.events())
        assert [asked.query for asked in one.bench.consul.questions(MAINTENANCE)] == [{"enable": "false"}]

    await live(one, act)


async def test_its_end_is_told_once_it_has_drained(nursery: trio.Nursery) -> None:
    """And not before, for a drain takes its own time."""
    told: list[bool] = []
    one = public_life(nursery)
    one.cycle.on_end = lambda: told.append("drained" in one.bench.events())
    one.bench.well()

    async def act() -> None:
        assert not told

    await live(one, act)
    assert told == [True]


async def test_its_end_is_told_when_it_is_cancelled(nursery: trio.Nursery) -> None:
    """As by a bug in any of its tasks."""
    ended = trio.Event()
    one = public_life(nursery)
    one.cycle.on_end = ended.set
    one.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        inner.cancel_scope.cancel()
    assert ended.is_set()
