"""Verdicts stay live: judged again when policy, roots or the time change (virtual time)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.base.freshness import Confirmation, Freshness
from agent.base.histogram import histogram
from agent.base.latest import Latest
from agent.connections.ledger import Ledger
from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import Direction
from agent.policy.authorize import Policy
from certs.bundle import TrustBundle
from certs.contexts import Contexts, build_contexts
from certs.peer import Peer
from certs.spiffe import ServiceId
from tests.certs import fitting
from tests.certs.authority import Issuer
from tests.support.agent_parts import START, agent_bench, virtual
from tests.support.faults import Faults
from tests.support.policies import policy_of


class Bench:
    """A judge, and connections that are open until it closes them."""

    def __init__(self, nursery: trio.Nursery, grace: float = 0.0, max_age: float = math.inf) -> None:
        self.nursery = nursery
        self.root = Issuer.root(now=START)
        self.policy: Latest[Policy] = Latest()
        self.confirmed: Latest[Confirmation] = Latest()
        self.contexts: Latest[Contexts] = Latest()
        self.closed: list[int] = []
        self.ledger = Ledger(virtual, agent_bench(nursery).agent.log)
        self.faults = Faults()
        self.judge = Reauthorizer(
            self.ledger,
            policy=self.policy,
            freshness=Freshness(self.confirmed, max_age, virtual),
            contexts=self.contexts,
            clock=virtual,
            on_closed=self.closed.append,
            faults=self.faults,
            grace=grace,
        )
        self.ledger.on_opened = self.judge.opened
        self.trust(self.root)
        self.allow(default=True)
        self.reasons: dict[str, str] = {}

    def trust(self, *roots: Issuer) -> None:
        leaf = fitting.leaf_of(roots[0].leaf())
        trust = fitting.bundle(*roots)
        proven = fitting.credentials(roots[0].leaf(), trust, START)
        assert leaf.id == proven.leaf.id
        self.contexts.publish(build_contexts(proven, self.contexts.version + 1))

    def allow(self, *, default: bool) -> None:
        self.policy.publish(policy_of([], "web", default_allow=default))

    def confirm(self) -> None:
        self.confirmed.publish(Confirmation(virtual(), trio.current_time()))

    def connect(self, service: str, until: datetime) -> None:
        self.nursery.start_soon(self._connection, service, until)

    async def _connection(self, service: str, until: datetime) -> None:
        assert self.contexts.value is not None
        bundle: TrustBundle = self.contexts.value.credentials.bundle
        identity = ServiceId(trust_domain=bundle.trust_domain, datacenter="dc1", service=service)
        with self.ledger.open(Direction.INBOUND, "caller") as connection:
            connection.peer = Peer(id=identity, serial="01", not_after=until, root=bundle.active.fingerprint)
            connection.relaying()
            await trio.Event().wait()
        self.reasons[service] = connection.closing.value if connection.closing else "nobody closed it"


LATE = START + timedelta(days=2)


async def running(nursery: trio.Nursery, grace: float = 0.0, max_age: float = math.inf) -> Bench:
    bench = Bench(nursery, grace, max_age)
    nursery.start_soon(bench.judge.run)
    await wait_all_tasks_blocked()
    return bench


async def test_a_change_of_intentions(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = await running(nursery)
    bench.connect("a", LATE)
    await trio.sleep(1)
    assert bench.reasons == {}
    bench.allow(default=False)
    await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    assert bench.reasons == {"a": "intention_withdrawn"}
    assert bench.closed == [1]


async def test_the_time_from_a_change_to_the_last_verdict_by_it_is_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await running(nursery)
    bench.connect("a", LATE)
    await trio.sleep(1)
    before = counted(bench.ledger)
    bench.allow(default=False)
    autojump_clock.jump(0.2)  # other tasks run before the judge
    bench.trust(bench.root)
    autojump_clock.jump(0.1)
    await wait_all_tasks_blocked()
    seconds, times = (after - was for after, was in zip(counted(bench.ledger), before, strict=True))
    assert seconds == pytest.approx(0.3)
    assert times == 1, "two changes, judged at once"
    await trio.sleep(120)
    assert counted(bench.ledger)[1] == before[1] + 1, "to look again for an expiry is no change"


def counted(ledger: Ledger) -> tuple[float, float]:
    """The sum and the number of the times from a change to the last verdict."""
    family = histogram("x", "")
    ledger.timings.rejudged.add_to(family)
    return family.samples[-2][1], family.samples[-1][1]


async def test_the_rule_that_admitted_is_kept_beside_the_one_that_cut(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await running(nursery)
    bench.connect("a", LATE)
    await trio.sleep(1)
    (connection,) = bench.ledger.live(Direction.INBOUND)
    connection.rule = "a => web (allow)"
    bench.allow(default=False)
    await wait_all_tasks_blocked()
    (ended,) = bench.ledger.recent()
    assert ended.admitted_by == "a => web (allow)"
    assert "deny" in ended.rule


async def test_a_connection_that_no_verdict_cut_was_admitted_by_its_rule(nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    with bench.ledger.open(Direction.INBOUND, "caller") as connection:
        connection.rule = "a => web (allow)"
    (ended,) = bench.ledger.recent()
    assert ended.admitted_by == ended.rule == "a => web (allow)"


@pytest.mark.parametrize("grace", [0.0, math.inf])
async def test_a_change_of_roots_closes_whatever_the_grace(
    nursery: trio.Nursery, autojump_clock: MockClock, grace: float
) -> None:
    bench = await running(nursery, grace)
    bench.connect("a", LATE)
    await trio.sleep(1)
    bench.trust(Issuer.root(now=START, name="new"))
    await trio.sleep(0.01)
    assert bench.reasons == {"a": "root_removed"}


async def test_each_peer_is_closed_when_its_own_certificate_ends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await running(nursery)
    now: Callable[[], datetime] = virtual
    bench.connect("later", now() + timedelta(minutes=10))
    await trio.sleep(1)
    bench.connect("sooner", now() + timedelta(minutes=1))
    await trio.sleep(59)
    assert bench.reasons == {}
    await trio.sleep(2)
    assert bench.reasons == {"sooner": "peer_expired"}
    await trio.sleep(9 * 60)
    assert bench.reasons == {"sooner": "peer_expired", "later": "peer_expired"}


@pytest.mark.parametrize(("grace", "closed"), [(600.0, {"old": "peer_expired"}), (math.inf, {})])
async def test_a_grace_puts_off_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock, grace: float, closed: dict[str, str]
) -> None:
    bench = await running(nursery, grace)
    bench.connect("old", virtual() + timedelta(minutes=1))
    await trio.sleep(9 * 60)
    assert bench.reasons == {}
    await trio.sleep(3 * 60)
    assert bench.reasons == closed


async def test_a_new_connection_that_ends_first_moves_the_next_look(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Between two looks that come by themselves, and with a connection before that ends much later."""
    bench = await running(nursery)
    bench.connect("later", LATE)
    await trio.sleep(1)
    bench.connect("soon", virtual() + timedelta(seconds=10))
    await trio.sleep(10)
    assert bench.reasons == {}
    await trio.sleep(0.1)
    assert bench.reasons == {"soon": "peer_expired"}


async def test_intentions_that_become_too_old_cut_callers_though_nothing_is_published(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await running(nursery, max_age=100.0)
    bench.confirm()
    bench.connect("a", LATE)
    await trio.sleep(99)
    assert bench.reasons == {}
    await trio.sleep(1.1)
    assert bench.reasons == {"a": "intentions_too_old"}
    assert bench.policy.version == 1


async def test_what_was_never_confirmed_keeps_no_caller(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await running(nursery, max_age=100.0)
    bench.connect("early", LATE)
    await trio.sleep(61)
    assert bench.reasons == {"early": "intentions_too_old"}
    bench.confirm()
    bench.connect("late", LATE)
    await trio.sleep(61)
    assert set(bench.reasons) == {"early"}


async def test_a_confirmation_judges_no_connection_anew(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await running(nursery, max_age=100.0)
    bench.confirm()
    bench.connect("a", LATE)
    await trio.sleep(1)
    looks: list[str] = []
    monkeypatch.setattr(bench.ledger, "live", partial(looks.append, "at all connections"))
    for _ in range(50):
        bench.confirm()
        await trio.sleep(0.1)
    assert looks == []


async def test_a_certificate_that_ends_with_the_calendar_may_be_outlived_by_a_grace(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """RFC 5280, 4.1.2.5: 99991231235959Z is what has no end; there is no later date to look at it again."""
    bench = await running(nursery, grace=600.0)
    bench.connect("endless", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    bench.connect("old", virtual() + timedelta(minutes=1))
    await trio.sleep(12 * 60)
    assert bench.reasons == {"old": "peer_expired"}
