"""Each watch asks the right question and reads the recorded answers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agent.base.incremental import Pieces
from agent.base.latest import Latest
from agent.config.registration import Registration
from agent.consul.api import Answer, LeafAnswer
from agent.consul.watch import AnswerRejected, Cursor, Watch
from agent.control.watches import (
    endpoints_watch,
    intentions_watch,
    leaf_watch,
    read_leaf,
    read_registration,
    registration_watch,
    roots_watch,
)
from agent.policy.intentions import Intentions
from certs.bundle import TrustBundle
from certs.leaf import Leaf
from tests.recorded import body
from tests.support.agent_parts import LEAF, MATCH, PROXY, ROOTS, SERVICE, Assembled, assembled, proxy_answer
from upstreams.endpoints import EndpointSet
from upstreams.spec import QueryDestination, ServiceDestination


async def one_answer(bench: Assembled, watch: Watch[object, object]) -> None:
    with trio.move_on_after(1):
        await watch.follow(bench.parts.clock, bench.parts.rng)


async def test_the_registration_is_followed_by_its_hash(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    cell: Latest[Registration] = Latest()
    watch = registration_watch(bench.parts.consul, PROXY, cell.publish)
    await one_answer(bench, watch)  # type: ignore[arg-type]  # any watch will do
    assert cell.value is not None
    assert cell.value.service == "web"
    assert [asked.query for asked in bench.consul.questions(SERVICE)] == [{}, {"hash": "h1", "wait": "60s"}]


async def test_roots_leaf_and_intentions_are_followed_by_their_index(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.well()
    bundle: Latest[TrustBundle] = Latest()
    leaf: Latest[Leaf] = Latest()
    intentions: Latest[Intentions] = Latest()
    consul = bench.parts.consul
    for watch in (
        roots_watch(consul, bundle.publish),
        leaf_watch(consul, "web", leaf.publish),
        intentions_watch(consul, "web", intentions.publish),
    ):
        await one_answer(bench, watch)  # type: ignore[arg-type]  # any watch will do
    assert bundle.value is not None
    assert leaf.value is not None
    assert leaf.value.id.service == "web"
    assert intentions.value is not None
    assert intentions.value.default_allow
    for path, index in ((ROOTS, "5"), (LEAF, "6"), (MATCH, "7")):
        assert [asked.query.get("index") for asked in bench.consul.questions(path)] == [None, index]


@pytest.mark.parametrize(("policy", "allow"), [("allow", True), ("deny", False), ("", False)])
async def test_an_unknown_default_policy_denies(
    nursery: trio.Nursery, autojump_clock: MockClock, policy: str, allow: bool
) -> None:
    bench = assembled(nursery)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy=policy)
    cell: Latest[Intentions] = Latest()
    await one_answer(bench, intentions_watch(bench.parts.consul, "web", cell.publish))  # type: ignore[arg-type]
    assert cell.value is not None
    assert cell.value.default_allow is allow


async def test_a_changed_default_policy_alone_is_a_change(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy="allow")
    bench.consul.answer(MATCH, {"web": None}, index=7, policy="deny")
    cell: Latest[Intentions] = Latest()
    await one_answer(bench, intentions_watch(bench.parts.consul, "web", cell.publish))  # type: ignore[arg-type]
    assert (cell.version, cell.value and cell.value.default_allow) == (2, False)


def reading(watch: Watch[object, object], value: object) -> object:
    found = watch.read(Answer(value=value))
    return found.at_once() if isinstance(found, Pieces) else found


def rejection(watch: Watch[object, object], value: object) -> AnswerRejected:
    with pytest.raises(AnswerRejected) as caught:
        reading(watch, value)
    return caught.value


async def test_answers_that_cannot_be_used_have_a_named_reason(nursery: trio.Nursery) -> None:
    consul = assembled(nursery).parts.consul
    cell: Latest[EndpointSet] = Latest()
    cases: list[tuple[object, object, str]] = [
        (
            registration_watch(consul, PROXY, Latest[Registration]().publish),
            {"ID": "x", "Kind": ""},
            "not_a_proxy",
        ),
        (
            roots_watch(consul, Latest[TrustBundle]().publish),
            {"TrustDomain": "x.consul", "Roots": []},
            "no_roots",
        ),
        (intentions_watch(consul, "web", Latest[Intentions]().publish), [{"SourceName": 5}], "malformed"),
        (endpoints_watch(consul, ServiceDestination("db"), cell.publish), [{"Node": 5}], "malformed"),
        (endpoints_watch(consul, QueryDestination("q"), cell.publish), {"Nodes": 5}, "malformed"),
    ]
    for watch, value, reason in cases:
        assert isinstance(watch, Watch)
        assert rejection(watch, value).reason == reason


def test_a_leaf_that_is_none_shows_nothing_of_its_key() -> None:
    with pytest.raises(AnswerRejected) as caught:
        read_leaf(Answer(value=LeafAnswer(cert_pem="", private_key_pem="key-text")))
    assert caught.value.reason == "bad_certificate"
    assert "key-text" not in str(caught.value)


def test_recorded_registrations_are_read() -> None:
    placed = read_registration(Answer(value=body("agent-service-sidecar")))
    assert (placed.proxy_id, placed.service) == ("web1-sidecar-proxy", "web")


async def test_how_each_upstream_is_watched(nursery: trio.Nursery) -> None:
    consul = assembled(nursery).parts.consul
    cell: Latest[EndpointSet] = Latest()
    service = endpoints_watch(consul, ServiceDestination("db", "dc2"), cell.publish)
    query = endpoints_watch(consul, QueryDestination("near"), cell.publish, 5.0)
    assert (service.name, service.cursor) == ("endpoints db@dc2", Cursor.INDEX)
    assert (query.cursor, query.poll_interval) == (Cursor.POLL, 5.0)
