"""The policy in the snapshot: Consul's intentions with our settings, and their age."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agent.base.phase import Phase
from agent.observe.readiness import missing
from tests.support.agent_parts import (
    MATCH,
    agent_bench,
    registration,
    settings,
)


async def test_intentions_are_published_with_our_settings_and_datacenter(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery, settings(narrow=["web@dc1"], audit="true"))
    bench.well()
    bench.control.take(registration(datacenter=None))
    await trio.sleep(1)
    assert bench.snapshot.policy.value is not None
    assert (bench.snapshot.policy.value.datacenter, bench.snapshot.policy.value.audit) == ("", True)
    assert list(map(str, bench.snapshot.policy.value.narrowings)) == ["web@dc1"]
    bench.control.watch_credentials(registration(datacenter=None))  # the leaf says where we are
    await trio.sleep(1)
    assert bench.snapshot.policy.value.datacenter == "dc1"
    assert bench.snapshot.policy.value.audit


async def test_intentions_are_too_old_when_consul_does_not_answer_and_good_again_when_it_does(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery, settings(intentions_max_age="120"))
    bench.well()
    bench.control.phase = Phase.SERVING
    bench.control.take(registration())
    await trio.sleep(1000)  # unchanged answers, about one a minute, keep them good
    assert missing(bench.agent) == ["credentials: not asked for yet"]
    assert "intentions.too_old" not in bench.events()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="rpc error", status=500)
    await trio.sleep(200)
    (piece,) = [piece for piece in missing(bench.agent) if piece.startswith("intentions")]
    assert piece.startswith("intentions: too old since 2031-05-17T")
    assert piece.endswith("(intentions_max_age): /v1/connect/intentions/match answered 500: rpc error")
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7)  # the same as before
    await trio.sleep(100)
    assert missing(bench.agent) == ["credentials: not asked for yet"]
    events = bench.events()
    assert (events.count("intentions.too_old"), events.count("intentions.current")) == (1, 1)
    assert events.count("intentions.changed") == 1, "that they are as good as before is no change"


@pytest.mark.slow
async def test_without_a_greatest_age_intentions_are_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.control.phase = Phase.SERVING
    bench.control.take(registration())
    await trio.sleep(1000)
    version = bench.snapshot.policy.version
    bench.consul.down = True
    bench.consul.drop()
    await trio.sleep(10**5)
    assert bench.snapshot.policy.value is not None
    freshness = bench.control.intentions.freshness
    assert (freshness.too_old_since(), freshness.good_until) == (None, None)
    assert bench.snapshot.policy.version == version == 1


async def test_a_datacenter_that_becomes_known_makes_old_intentions_no_younger(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery, settings(intentions_max_age="120"))
    bench.well()
    bench.control.phase = Phase.SERVING
    bench.control.take(registration(datacenter=None))
    await trio.sleep(1)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="rpc error", status=500)
    await trio.sleep(300)
    bench.control.watch_credentials(registration(datacenter=None))
    before = bench.snapshot.policy.version
    known, _ = await bench.snapshot.policy.newer(before)
    await trio.sleep(1)
    assert known.datacenter == "dc1"
    assert bench.control.intentions.freshness.too_old_since() is not None
    assert bench.snapshot.policy.version == before + 1
