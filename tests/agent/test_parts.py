"""The parts of an agent, as far as they are there."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agent.control.plane import OwnWatches
from tests.support.agent_parts import PROXY, assembled, registration


async def test_of_an_agent_that_has_not_started_there_is_little(nursery: trio.Nursery) -> None:
    parts = assembled(nursery).parts
    assert parts.public is None
    assert list(parts.watches()) == []
    parts.ask_again()  # nobody waits for anything
    assert parts.own_datacenter() == ""
    parts.placement.publish(registration(datacenter=None))
    assert parts.own_datacenter() == ""


async def test_the_leaf_knows_our_datacenter_better_than_the_registration(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.well()
    watches = OwnWatches(parts=bench.parts, nursery=nursery)
    watches.take(registration(datacenter=None))
    watches.credentials(registration(datacenter=None))
    watches.registration(PROXY)
    await trio.sleep(1)
    assert bench.parts.own_datacenter() == "dc1"
    asked = len(bench.consul.asked)
    bench.parts.ask_again()  # questions under way are not asked twice
    await trio.sleep(0.1)
    assert len(bench.consul.asked) == asked
