"""What keeps an agent from serving, one piece at a time."""

from __future__ import annotations

from datetime import timedelta

import trio
from trio.testing import MockClock

from agent.base.phase import Phase
from agent.consul.api import ConsulError, ConsulReason
from agent.control.credentials import Rotation
from agent.control.watches import intentions_watch, registration_watch
from agent.observe.readiness import GONE_GRACE, missing
from agent.parts import Parts
from agent.policy.intentions import Intentions
from certs.contexts import build_contexts
from tests.certs import fitting
from tests.certs.authority import Issuer
from tests.support.agent_parts import START, Assembled, assembled, registration

NOBODY = Intentions(destination="web", rules=(), default_allow=False)


def error(reason: ConsulReason = ConsulReason.UNAVAILABLE) -> ConsulError:
    return ConsulError(reason, "/v1/x", "no", status=500)


def rotation(bench: Assembled) -> Rotation:
    parts = bench.parts
    return Rotation(
        parts.consul,
        service="web",
        datacenter="dc1",
        contexts=parts.contexts,
        events=parts.journal,
        clock=parts.clock,
        rng=parts.rng,
    )


def publish_credentials(parts: Parts) -> None:
    root = Issuer.root(now=START)
    proven = fitting.credentials(root.leaf(not_after=START + timedelta(hours=1)), fitting.bundle(root), START)
    parts.contexts.publish(build_contexts(proven, 1))


async def test_from_nothing_to_ready(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = assembled(nursery)
    parts = bench.parts
    assert missing(parts) == ["registration: no answer yet"]
    parts.start.failed(error(), START)
    assert missing(parts) == ["registration: /v1/x answered 500: no"]
    parts.placement.publish(registration())
    assert missing(parts) == ["credentials: not asked for yet", "intentions: no answer yet"]
    parts.rotation = rotation(bench)
    assert missing(parts)[0] == "credentials: roots: no answer yet"
    parts.rotation.roots_watch.status.succeeded(START)
    parts.rotation.leaf_watch.status.failed(error(ConsulReason.DENIED), START)
    assert missing(parts)[0] == "credentials: leaf: /v1/x answered 500: no"
    parts.rotation.leaf_watch.status.succeeded(START)
    assert missing(parts)[0] == "credentials: not proven yet"
    parts.rotation.status.rejected_reason, parts.rotation.status.rejected_detail = "expired", "long ago"
    assert missing(parts)[0] == "credentials: expired: long ago"
    publish_credentials(parts)
    parts.intentions_watch = intentions_watch(parts.consul, "web", parts.intentions.publish)
    parts.intentions_watch.status.failed(error(), START)
    assert missing(parts) == ["intentions: /v1/x answered 500: no"]
    parts.intentions.publish(NOBODY)
    assert missing(parts) == ["listeners: not open yet"]
    parts.phase = Phase.SERVING
    assert missing(parts) == []
    parts.phase = Phase.DRAINING
    assert missing(parts) == ["draining"]


async def serving(bench: Assembled) -> Parts:
    parts = bench.parts
    parts.placement.publish(registration())
    publish_credentials(parts)
    parts.intentions.publish(NOBODY)
    parts.phase = Phase.SERVING
    return parts


async def test_a_leaf_that_has_expired(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    parts = await serving(assembled(nursery))
    await trio.sleep(3601)
    assert missing(parts) == ["credentials: the leaf expired at 2031-05-17T13:00:00+00:00"]


async def test_a_registration_may_be_gone_for_a_moment(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    parts = await serving(assembled(nursery))
    watch = parts.registration_watch = registration_watch(parts.consul, "x", parts.placement.publish)
    watch.status.failed(error(), parts.clock())
    await trio.sleep(1000)
    assert missing(parts) == [], "an outage is no reason"
    watch.status.succeeded(parts.clock())
    watch.status.failed(error(ConsulReason.NOT_FOUND), parts.clock())
    await trio.sleep(GONE_GRACE)
    assert missing(parts) == []
    await trio.sleep(1)
    (piece,) = missing(parts)
    assert piece.startswith("registration: Consul has not known")


async def test_without_a_public_listener_intentions_do_not_matter(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    parts = assembled(nursery).parts
    parts.placement.publish(registration(public_bind=None))
    publish_credentials(parts)
    parts.phase = Phase.SERVING
    assert missing(parts) == []
