"""The wall clock is set back by an hour: what lasts some seconds lasts as long as before.

Dates (a certificate's, a log line's) are of the wall clock; durations are of one that only goes forward.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.base.freshness import Confirmation, Freshness
from agent.base.latest import Latest
from agent.base.phase import Phase
from agent.connections.records import Audited, Direction
from agent.consul.errors import ConsulError, ConsulReason
from agent.control.churn import MOST_LEAVES
from agent.control.watches import registration_watch
from agent.log.repeats import LINES
from agent.observe.readiness import missing
from agent.observe.status import document
from agent.outbound.upstream_state import UpstreamState
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending
from tests.certs.authority import Issuer
from tests.support.agent_parts import START, AgentBench, agent_bench, registration
from tests.support.credentials_keeper import LEAF, Bench, begin
from tests.support.upstream_doubles import Lookups, Told
from tests.upstreams.test_choose import endpoint
from upstreams.route import Candidate
from upstreams.spec import LocalBind, ServiceDestination, Upstream

DB = Upstream(
    destination=ServiceDestination("db"),
    bind=LocalBind("127.0.0.1", 9191),
    failover=(ServiceDestination("db", "dc2"),),
    hold=30,
)
NEAR, FAR = endpoint("near"), endpoint("far", datacenter="dc2")


class Wall:
    """A wall clock that goes with trio's, and can be set."""

    def __init__(self) -> None:
        self.skew = timedelta()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=trio.current_time() % 10**6) + self.skew

    def set_back(self) -> None:
        self.skew -= timedelta(hours=1)


@pytest.fixture
def wall() -> Wall:
    return Wall()


def upstream(agent: AgentBench) -> tuple[UpstreamState, Lookups]:
    """One upstream in the surroundings that an agent gives its own."""
    lookups = Lookups()
    context = replace(agent.data.reconciler.upstreams.context, sources=lookups, events=Told())
    targets = UpstreamState(DB, context)
    targets.sources()
    lookups.answer("db", NEAR)
    lookups.answer("db@dc2", FAR)
    return targets, lookups


async def test_an_ejection(nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall) -> None:
    agent = agent_bench(nursery, clock=wall)
    targets, _ = upstream(agent)
    targets.failed(Candidate(target=0, endpoint=NEAR, hop=NEAR))
    wall.set_back()
    assert targets.failures.share(NEAR) == 0
    await trio.sleep(10.1)
    assert targets.failures.share(NEAR) > 0


async def test_the_hold_before_a_better_target_is_taken_again(
    nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall
) -> None:
    agent = agent_bench(nursery, clock=wall)
    targets, lookups = upstream(agent)
    lookups.answer("db")
    assert str(targets.active()) == "db@dc2"
    lookups.answer("db", NEAR)
    assert str(targets.active()) == "db@dc2"
    wall.set_back()
    await trio.sleep(30)
    assert str(targets.active()) == "db"


async def test_the_greatest_age_of_intentions(autojump_clock: MockClock, wall: Wall) -> None:
    freshness = Freshness(Latest(Confirmation(wall(), trio.current_time())), 60.0, wall)
    await trio.sleep(30)
    wall.set_back()
    assert freshness.too_old_since() is None
    await trio.sleep(31)
    assert freshness.too_old_since() is not None


async def test_how_long_a_registration_may_be_gone(
    nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall
) -> None:
    agent = agent_bench(nursery, clock=wall)
    agent.snapshot.registration.publish(registration())
    agent.control.phase = Phase.SERVING
    watch = registration_watch(agent.control.consul, "x", agent.snapshot.registration.publish)
    agent.control.watches["registration"] = watch
    watch.status.failed(ConsulError(ConsulReason.NOT_FOUND, "/v1/agent/service/x", "no", status=404), wall())
    wall.set_back()
    await trio.sleep(61.0)
    assert any("Consul has not known" in piece for piece in missing(agent.agent))


async def test_how_old_an_answer_is_and_how_long_the_agent_lives(
    nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall
) -> None:
    agent = agent_bench(nursery, clock=wall)
    watch = registration_watch(agent.control.consul, "x", agent.snapshot.registration.publish)
    agent.control.watches["registration"] = watch
    watch.status.succeeded(wall())
    wall.set_back()
    await trio.sleep(5)
    told = msgspec.json.decode(msgspec.json.encode(await document(agent.agent)))
    assert told["uptime_seconds"] == 5
    assert [row["answered_seconds_ago"] for row in told["watches"]] == [5]


async def test_what_a_connection_lasted(nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall) -> None:
    agent = agent_bench(nursery, clock=wall)
    with agent.data.ledger.open(Direction.INBOUND, "caller") as connection:
        connection.relaying()
        wall.set_back()
        await trio.sleep(2)
        connection.end(Ending.CLEAN)
    (finished,) = agent.data.ledger.recent()
    assert finished.seconds == pytest.approx(2)


async def test_a_flood_in_the_log(nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall) -> None:
    agent = agent_bench(nursery, clock=wall)
    journal = agent.agent.log
    audited = Audited(reason=VerdictReason.INTENTION_DENY, rule="x")
    with agent.data.ledger.open(Direction.INBOUND, "caller") as connection:
        for _ in range(LINES + 5):
            journal.audited(connection, audited)
        wall.set_back()
        journal.audited(connection, audited)
    assert agent.events().count("audit.would_deny") == LINES


async def test_the_next_try_after_a_leaf_that_did_not_fit(
    nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall
) -> None:
    bench = Bench(nursery, clock=wall)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    bench.leaf(Issuer.root(now=START, name="stranger").leaf(serial=0x0E))
    await trio.sleep(5)
    assert bench.rotation.status.rejected_reason == "untrusted_chain"
    asked = len(bench.consul.questions(LEAF))
    wall.set_back()
    await trio.sleep(40)
    assert len(bench.consul.questions(LEAF)) > asked


async def test_how_often_leaves_may_come(
    nursery: trio.Nursery, autojump_clock: MockClock, wall: Wall
) -> None:
    bench = Bench(nursery, clock=wall)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    for serial in range(MOST_LEAVES - 1):
        bench.leaf(bench.root.leaf(serial=0x10 + serial))
        await trio.sleep(20)
    assert bench.rotation.churning
    wall.set_back()
    await trio.sleep(600)
    assert not bench.rotation.churning
