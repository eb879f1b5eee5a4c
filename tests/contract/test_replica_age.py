"""A secondary that is cut off from its primary says how old its replica is, beside either federation."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio

from agent.base.incremental import Incremental
from agent.config.settings import resolve
from agent.consul.connect import consul_of
from agent.consul.token import TokenSource
from agent.intentions.replica import Replica, ReplicaReason
from agent.policy.intentions import read_match
from certs.bundle import parse_roots
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.federation import Federation, running, wait_until_ready

figures = logging.getLogger("contract.figures")

EXACT = "/v1/connect/intentions/exact?source=web&destination=aged"
MATCH = "/v1/connect/intentions/match?by=destination&name=aged"


@pytest.fixture(params=KINDS)
def of_its_own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    """A federation whose primary may be killed."""
    with running(request.param, tmp_path_factory.mktemp(f"aged-{request.param}")) as federation:
        yield federation


async def compared(api: Api) -> set[ReplicaReason]:
    """What a sidecar of `aged` in that datacenter finds."""
    settings = resolve({"service": ["aged"], "http-addr": [api.url.removeprefix("http://")]}, {}).settings
    assert settings is not None
    consul = consul_of(settings, TokenSource(None, None))
    try:
        bundle = parse_roots((await consul.roots()).value)
        answer = await consul.intentions("aged")
        listed = await Incremental(read_match(answer.value, "aged", default_allow=False)).run()
        replica = Replica(
            consul=consul,
            service="aged",
            datacenter=lambda: api.name,
            listed=lambda: listed,
            bundle=lambda: bundle,
        )
        await replica.compare()
    finally:
        with trio.CancelScope(shield=True):
            await consul.aclose()
    figures.info("%s: %s", api.name, replica.describe("intentions") or "no replica")
    return {part.reason for part in replica.parts.values()}


def found(api: Api) -> set[ReplicaReason]:
    return trio.run(compared, api)


def test_the_replica_is_compared_with_the_primary_and_its_loss_is_seen(of_its_own: Federation) -> None:
    dc1, dc2 = of_its_own
    dc1.put(EXACT, {"Action": "deny"})
    dc2.until(MATCH, lambda listed: listed["aged"])
    assert found(dc1) == {ReplicaReason.PRIMARY}
    assert found(dc2) == {ReplicaReason.CURRENT}
    of_its_own.processes[0].kill()
    assert found(dc2) == {ReplicaReason.UNREACHABLE}
    of_its_own.processes[0].restart()
    wait_until_ready(of_its_own)
    assert found(dc2) == {ReplicaReason.CURRENT}
