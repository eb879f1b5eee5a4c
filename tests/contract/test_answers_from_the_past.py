"""A token that loses its rights under a pending question: what a real Consul answers then empties no list.

Consul 1.18 ends a question whose wait is over, between the expiry of its token and the refusal, with an empty
list and index 1; 1.10 refuses. Watches ask out of phase, so that some of them are held at that moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import pytest
import trio

from agent.config.parsers import parse_http_addr
from agent.consul import watch as watching
from agent.consul.api import Consul
from agent.consul.connect import dialler
from agent.consul.http import Client
from agent.consul.token import TokenSource
from agent.consul.watch import Watch, WatchReason
from agent.control.watches import (
    EndpointsWatch,
    IntentionsWatch,
    endpoints_watch,
    intentions_watch,
    source_intentions_watch,
)
from tests.contract.alone import managed
from tests.contract.client import Api
from tests.contract.federation import consul_binary, consul_version
from upstreams.spec import ServiceDestination

LIFE = 61  # seconds; Consul lets no token live for less than a minute
SECONDS = 80  # what a token's watches need, and the seconds in which Consul takes note of its end
WATCHES = 6
WAIT = 4.0  # seconds a question may be held; a minute would seldom end at the right moment

pytestmark = [
    pytest.mark.consul,
    pytest.mark.skipif(consul_binary() is None, reason="no real Consul: CONSUL_BIN, or `consul` on PATH"),
]


@pytest.fixture(scope="module")
def managing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A datacenter whose default allows: an emptied list of intentions would open it."""
    with managed("consul", "allow", tmp_path_factory.mktemp("past")) as (_, manager):
        sidecar: dict[str, Any] = {"Connect": {"SidecarService": {}}}
        assert manager.put("/v1/agent/service/register", {"Name": "db", "Port": 9, **sidecar}).status == 200
        for source, destination in (("web", "db"), ("mallory", "web")):
            exact = f"/v1/connect/intentions/exact?source={source}&destination={destination}"
            assert manager.put(exact, {"Action": "deny"}).text == "true"
        yield manager


def now() -> datetime:
    return datetime.now(UTC)


def expiring(manager: Api) -> str:
    """A token that may act for web, and dies in a minute."""
    secret = str(uuid4())
    definition = {
        "SecretID": secret,
        "ServiceIdentities": [{"ServiceName": "web"}],
        "ExpirationTTL": f"{LIFE}s",
    }
    assert manager.put("/v1/acl/token", definition).status == 200
    return secret


def client(manager: Api, secret: str) -> Consul:
    dial = dialler(parse_http_addr(manager.url), None, None)
    return Consul(Client(dial, host="127.0.0.1"), TokenSource(secret, None))


async def followed(watches: list[Watch[Any, Any]]) -> None:
    async def follow(one: Watch[Any, Any], after: float) -> None:
        await trio.sleep(after)
        await one.follow(now, Random(after))

    with trio.move_on_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number, one in enumerate(watches):
                nursery.start_soon(follow, one, number * WAIT / len(watches))


@pytest.mark.timeout(SECONDS + 60)
async def test_a_token_that_expires_empties_no_list(managing: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WAIT", WAIT)
    consul, published = client(managing, expiring(managing)), list[Any]()
    endpoints: list[EndpointsWatch] = [
        endpoints_watch(consul, ServiceDestination("db"), published.append) for _ in range(WATCHES)
    ]
    intentions: list[IntentionsWatch] = [
        intentions_watch(consul, "web", published.append) for _ in range(WATCHES)
    ]
    outgoing = [source_intentions_watch(consul, "web", published.append) for _ in range(WATCHES)]
    watches = [*endpoints, *intentions, *outgoing]
    await followed(watches)
    await consul.aclose()
    for one in watches:
        assert one.status.answers
        assert one.status.failing is not None
        assert one.status.failing.reason == "denied"
    for value in published:
        assert getattr(value, "rules", None) or getattr(value, "endpoints", None)
    back = sum(one.status.failures[WatchReason.INDEX_WENT_BACK] for one in watches)
    binary = consul_binary()
    assert binary
    assert bool(back) is (consul_version(binary) >= (1, 18)), "what this Consul does is not what was seen"


def telling_of_rights() -> None:
    """Skip with a Consul that does not."""
    binary = consul_binary()
    assert binary
    if consul_version(binary) < (1, 11):
        pytest.skip("before 1.11 nothing tells a list without rights from one without instances")


def may(manager: Api, rules: str, secret: str) -> None:
    """Give a token these rights, and no others."""
    policy = manager.put("/v1/acl/policy", {"Name": f"of-{secret}", "Rules": rules}).json
    token = {"SecretID": secret, "Policies": [{"ID": policy["ID"]}]}
    assert manager.put("/v1/acl/token", token).status == 200


async def test_an_empty_list_for_want_of_rights_is_told_from_one_without_instances(managing: Api) -> None:
    telling_of_rights()
    secret = str(uuid4())
    may(managing, 'node_prefix "" { policy = "deny" }', secret)
    consul, published = client(managing, secret), list[Any]()
    one = endpoints_watch(consul, ServiceDestination("db"), published.append)
    other = endpoints_watch(consul, ServiceDestination("nobody"), published.append)
    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            for watch in (one, other):
                nursery.start_soon(watch.follow, now, Random(1))
    await consul.aclose()
    assert one.status.failures == {WatchReason.FILTERED: 1}
    assert not one.status.answers
    assert other.status.failing is None
    assert [value.endpoints for value in published] == [()]


async def test_rights_that_go_while_a_question_is_held_empty_no_list(
    managing: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers the held question is an empty list, with the same index and without a sign."""
    telling_of_rights()
    monkeypatch.setattr(watching, "WAIT", WAIT)
    secret = str(uuid4())
    may(managing, 'node_prefix "" { policy = "read" }', secret)
    consul, published = client(managing, secret), list[Any]()
    watch = endpoints_watch(consul, ServiceDestination("db"), published.append)
    failed = trio.Event()
    watch.on_failure = lambda _: failed.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.follow, now, Random(1))
        await trio.sleep(1)
        policy = managing.get(f"/v1/acl/policy/name/of-{secret}").json
        policy["Rules"] = 'service_prefix "" { policy = "deny" }'
        assert managing.put(f"/v1/acl/policy/{policy['ID']}", policy).status == 200
        with trio.fail_after(60):
            await failed.wait()
        nursery.cancel_scope.cancel()
    await consul.aclose()
    assert watch.status.failures["denied"] or watch.status.failures[WatchReason.FILTERED]
    assert [len(value.endpoints) for value in published] == [1]
