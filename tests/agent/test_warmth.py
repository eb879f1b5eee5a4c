"""Which upstreams have a pool: as the registration says, and none once the agent drains."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.latest import Latest
from agent.parts import Parts
from agent.targets import Targets
from agent.warm_pool import WarmPool
from agent.warmth import keep_warm
from tests.agent.assembled import assembled
from tests.agent.surroundings import Lookups, Told, surroundings
from tests.agent.warm_story import DB
from tests.upstreams.test_choose import Clock


def targets(warm: int) -> Targets:
    return Targets(replace(DB, warm=warm), surroundings(Lookups(), Told(), Clock()))


class Bench:
    """The upstreams in force, and the pools that run."""

    def __init__(self, parts: Parts) -> None:
        self.in_force: Latest[tuple[Targets, ...]] = Latest()
        self.running: list[Targets] = []
        self.parts = parts
        parts.upstreams = cast("Any", SimpleNamespace(in_force=self.in_force))

    async def now(self, *current: Targets) -> list[Targets]:
        self.in_force.publish(current)
        await wait_all_tasks_blocked()
        return self.running


async def test_those_that_want_one_have_one(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(assembled(nursery).parts)

    async def run(pool: WarmPool) -> None:
        bench.running.append(pool._targets)
        try:
            await trio.sleep_forever()
        finally:
            bench.running.remove(pool._targets)

    monkeypatch.setattr(WarmPool, "run", run)
    cold, one, two = targets(0), targets(2), targets(3)
    async with trio.open_nursery() as inner:
        inner.start_soon(keep_warm, bench.parts)
        assert await bench.now(cold) == []
        assert await bench.now(cold, one) == [one]
        assert set(await bench.now(cold, one, two)) == {one, two}
        one.become(replace(DB, warm=0))
        assert await bench.now(cold, one, two) == [two]
        one.become(DB)
        assert set(await bench.now(one, two)) == {one, two}
        assert await bench.now(one) == [one]
        inner.cancel_scope.cancel()
    assert bench.running == []


async def test_without_any_the_pools_module_is_not_loaded(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(assembled(nursery).parts)
    monkeypatch.delitem(sys.modules, "agent.warm_pool")
    async with trio.open_nursery() as inner:
        inner.start_soon(keep_warm, bench.parts)
        await bench.now(targets(0))
        assert "agent.warm_pool" not in sys.modules
        inner.cancel_scope.cancel()
