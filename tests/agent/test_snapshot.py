"""Where both planes meet: which datacenter is ours."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.support.agent_parts import PROXY, agent_bench, registration


async def test_nothing_is_known_of_an_agent_that_has_not_started(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    assert list(bench.control.statuses()) == []
    bench.control.ask_again()  # no watch waits for anything
    assert bench.snapshot.own_datacenter() == ""
    bench.snapshot.registration.publish(registration(datacenter=None))
    assert bench.snapshot.own_datacenter() == ""


async def test_the_leaf_knows_our_datacenter_better_than_the_registration(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.control.take(registration(datacenter=None))
    bench.control.watch_credentials(registration(datacenter=None))
    bench.control.watch_registration(PROXY)
    await trio.sleep(1)
    assert bench.snapshot.own_datacenter() == "dc1"
    held = [asked for asked in bench.consul.asked if asked.query.get("wait") == "60s"]
    bench.control.ask_again()  # questions under way are not asked twice
    await trio.sleep(0.1)
    assert [asked for asked in bench.consul.asked if asked.query.get("wait") == "60s"] == held
