"""What keeps an agent from serving, one piece at a time."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime

import trio
from trio.testing import MockClock

from agent.base.phase import Phase
from agent.config.opaque_config import Problem, ProblemReason
from agent.consul.errors import ConsulError, ConsulReason
from agent.control.credentials import CredentialsKeeper
from agent.control.self_registration import GONE_GRACE
from agent.control.watches import intentions_watch, registration_watch
from agent.observe.readiness import facts, headline, missing
from certs.contexts import build_contexts
from tests.certs import fitting
from tests.certs.authority import Issuer
from tests.support.agent_parts import START, AgentBench, agent_bench, registration
from tests.support.policies import policy_of
from upstreams.endpoints import EndpointSet
from upstreams.spec import parse_upstream_flag

NOBODY = policy_of(None, "web", default_allow=False)


def error(reason: ConsulReason = ConsulReason.UNAVAILABLE) -> ConsulError:
    return ConsulError(reason, "/v1/x", "no", status=500)


def rotation(bench: AgentBench) -> CredentialsKeeper:
    return CredentialsKeeper(
        bench.control.consul,
        service="web",
        datacenter="dc1",
        contexts=bench.snapshot.credentials,
        events=bench.agent.log,
        clock=bench.control.clock,
        rng=bench.control.rng,
    )


def publish_credentials(bench: AgentBench) -> None:
    root = Issuer.root(now=START)
    proven = fitting.credentials(root.leaf(not_after=START + timedelta(hours=1)), fitting.bundle(root), START)
    bench.snapshot.credentials.publish(build_contexts(proven, 1))


async def test_from_nothing_to_ready(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = agent_bench(nursery)
    assert missing(bench.agent) == ["registration: no answer yet"]
    assert headline(bench.agent) == "starting · registration: no answer yet · gives up after 60 s"
    bench.control.start_status.failed(error(), START)
    assert missing(bench.agent) == ["registration: /v1/x answered 500: no"]
    bench.snapshot.registration.publish(registration())
    assert missing(bench.agent) == ["credentials: not asked for yet", "intentions: no answer yet"]
    bench.control.credentials = rotation(bench)
    assert missing(bench.agent)[0] == "credentials: roots: no answer yet"
    bench.control.credentials.roots_watch.status.succeeded(START)
    bench.control.credentials.leaf_watch.status.failed(error(ConsulReason.DENIED), START)
    denied = "credentials: leaf: /v1/x answered 500: no; no token is given, and the anonymous one lacks"
    assert missing(bench.agent)[0].startswith(denied)
    bench.control.credentials.leaf_watch.status.succeeded(START)
    assert missing(bench.agent)[0] == "credentials: not proven yet"
    bench.control.credentials.status.rejected_reason, bench.control.credentials.status.rejected_detail = (
        "expired",
        "long ago",
    )
    assert missing(bench.agent)[0] == "credentials: expired: long ago"
    publish_credentials(bench)
    bench.control.watches["intentions"] = intentions_watch(bench.control.consul, "web", lambda _: None)
    bench.control.watches["intentions"].status.failed(error(), START)
    assert missing(bench.agent) == ["intentions: /v1/x answered 500: no"]
    bench.snapshot.policy.publish(NOBODY)
    assert missing(bench.agent) == ["listeners: not open yet"]
    bench.control.phase = Phase.SERVING
    assert missing(bench.agent) == []
    assert headline(bench.agent) == "serving · Consul silent 0 s · leaf 1 h"
    bench.control.phase = Phase.DRAINING
    assert missing(bench.agent) == ["draining"]


async def serving(bench: AgentBench) -> AgentBench:
    bench.snapshot.registration.publish(registration())
    publish_credentials(bench)
    bench.snapshot.policy.publish(NOBODY)
    bench.control.phase = Phase.SERVING
    return bench


async def test_a_leaf_that_has_expired(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = await serving(agent_bench(nursery))
    await trio.sleep(3601)
    assert missing(bench.agent) == [
        "credentials: credentials_expired: our certificate expired at 2031-05-17T13:00:00+00:00"
    ]


async def test_a_registration_may_be_gone_for_a_moment(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = await serving(agent_bench(nursery))
    watch = bench.control.watches["registration"] = registration_watch(
        bench.control.consul, "x", bench.snapshot.registration.publish
    )
    watch.status.failed(error(), bench.control.clock())
    await trio.sleep(1000)
    assert missing(bench.agent) == [], "an outage is no reason"
    watch.status.succeeded(bench.control.clock())
    watch.status.failed(error(ConsulReason.NOT_FOUND), bench.control.clock())
    await trio.sleep(GONE_GRACE)
    assert missing(bench.agent) == []
    await trio.sleep(1)
    (piece,) = missing(bench.agent)
    assert piece.startswith("registration: Consul has not known")


async def test_without_a_public_listener_intentions_do_not_matter(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.snapshot.registration.publish(registration(public_bind=None))
    publish_credentials(bench)
    bench.control.phase = Phase.SERVING
    assert missing(bench.agent) == []


async def test_the_headline_names_upstreams_and_an_outage_of_consul_as_one_cause(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    upstreams = tuple(parse_upstream_flag(spec) for spec in ("db:9191", "cache@dc2:9192"))
    bench.snapshot.registration.publish(registration(upstreams=upstreams, public_bind=None))
    publish_credentials(bench)
    bench.control.phase = Phase.SERVING
    for name in ("db", "cache"):
        bench.consul.hang(f"/v1/health/connect/{name}")
    bench.control.endpoints.start(nursery)
    bench.control.endpoints.want(upstreams)
    line = "serving · 2 of 2 upstreams have no answer yet (db, cache@dc2) · leaf 1 h"
    assert headline(bench.agent) == line
    db = bench.control.endpoints.source(upstreams[0].destination, None)
    db.endpoints.publish(EndpointSet(endpoints=()))
    for status in bench.control.statuses():
        status.failed(error(), START)
    await trio.sleep(28.5)
    nursery.cancel_scope.cancel()
    line = "serving · 1 of 2 upstreams has no instance (db) · Consul silent 28 s · leaf 59 min"
    assert headline(bench.agent) == line


async def test_a_question_that_consul_refuses_is_no_silence(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.control.phase = Phase.SERVING
    for name in ("intentions", "registration"):
        bench.control.watches[name] = intentions_watch(bench.control.consul, "web", lambda _: None)
    one, other = (bench.control.watches[name].status for name in ("intentions", "registration"))
    other.succeeded(START)
    one.failed(error(), START)
    assert facts(bench.agent).silent is None
    assert facts(bench.agent).refused == (one.name,)
    one.failed(ConsulError(ConsulReason.UNAVAILABLE, "/v1/x", "refused"), START)
    assert facts(bench.agent).silent is not None
    one.failed(error(), START)
    other.failed(error(), START)  # none but 5xx: no leader
    assert facts(bench.agent).silent is not None


async def test_an_upstream_that_is_not_served_is_told_of(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    taken = Problem(where="upstream db on 127.0.0.1:9191", reason=ProblemReason.APP_BIND, detail="the app")
    other = Problem(where="envoy", reason=ProblemReason.UNKNOWN_KEYS, detail="x")
    bench.snapshot.registration.publish(registration(problems=(taken, other)))
    assert facts(bench.agent).complaints == (str(taken),)


async def test_a_clock_that_differs_is_told_of(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    assert bench.agent.complaints == []
    bench.control.skew.take(format_datetime(bench.control.clock() + timedelta(hours=1), usegmt=True), 0.0)
    (told,) = bench.agent.complaints
    assert told.startswith("Consul's clock is 3")
    assert told.endswith(" s ahead of ours")
