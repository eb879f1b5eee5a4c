"""Each watch asks the right question and reads the recorded answers."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.config.registration import Registration
from agent.consul.answers import LeafAnswer
from agent.consul.api import Answer
from agent.consul.watch import AnswerRejected, Cursor, Watch
from agent.control.watches import (
    endpoints_watch,
    intentions_watch,
    leaf_watch,
    read_leaf,
    read_registration,
    registration_watch,
    roots_watch,
    source_intentions_watch,
)
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import SourceIntentions
from certs.bundle import TrustBundle
from certs.leaf import Leaf
from tests.certs.authority import Issuer, roots_answer
from tests.recorded import body
from tests.support.agent_parts import (
    LEAF,
    MATCH,
    PROXY,
    ROOTS,
    SERVICE,
    AgentBench,
    agent_bench,
    proxy_answer,
)
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, QueryDestination, ServiceDestination

HEALTH = "/v1/health/connect/db"
GATEWAYS = "/v1/health/service/mesh-gateway"


async def one_answer(bench: AgentBench, watch: Watch[object, object]) -> None:
    with trio.move_on_after(1):
        await watch.follow(bench.control.clock, bench.control.rng)


async def test_the_registration_is_followed_by_its_hash(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    cell: Latest[Registration] = Latest()
    watch = registration_watch(bench.control.consul, PROXY, cell.publish)
    await one_answer(bench, watch)  # type: ignore[arg-type]  # any watch will do
    assert cell.value is not None
    assert cell.value.service == "web"
    assert [asked.query for asked in bench.consul.questions(SERVICE)] == [{}, {"hash": "h1", "wait": "60s"}]


async def test_roots_leaf_and_intentions_are_followed_by_their_index(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bundle: Latest[TrustBundle] = Latest()
    leaf: Latest[Leaf] = Latest()
    intentions: Latest[Intentions] = Latest()
    consul = bench.control.consul
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
    assert intentions.value.default_unknown == "authorize was not asked yet"
    for path, index in ((ROOTS, "5"), (LEAF, "6"), (MATCH, "7")):
        assert [asked.query.get("index") for asked in bench.consul.questions(path)] == [None, index]


@pytest.mark.parametrize(("policy", "unknown"), [("allow", True), ("deny", False), ("", False)])
async def test_a_header_alone_allows_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock, policy: str, unknown: bool
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy=policy)
    cell: Latest[Intentions] = Latest()
    await one_answer(bench, intentions_watch(bench.control.consul, "web", cell.publish))  # type: ignore[arg-type]
    assert cell.value is not None
    assert (cell.value.default_allow, bool(cell.value.default_unknown)) == (False, unknown)


async def test_a_changed_default_policy_alone_is_a_change(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy="allow")
    bench.consul.answer(MATCH, {"web": None}, index=7, policy="deny")
    cell: Latest[Intentions] = Latest()
    await one_answer(bench, intentions_watch(bench.control.consul, "web", cell.publish))  # type: ignore[arg-type]
    assert (cell.version, cell.value and cell.value.default) == (2, "deny")


def reading(watch: object, value: object, *, filtered: bool = False) -> object:
    assert isinstance(watch, Watch)
    if watch.name in {"intentions", "outgoing"}:  # whose answers are read from their bytes
        value = msgspec.json.encode({"web": value})
    found = watch.read(Answer(value=value, filtered=filtered))
    return found.run_now() if isinstance(found, Incremental) else found


def rejection(watch: object, value: object, *, filtered: bool = False) -> AnswerRejected:
    with pytest.raises(AnswerRejected) as caught:
        reading(watch, value, filtered=filtered)
    return caught.value


async def test_answers_that_cannot_be_used_have_a_named_reason(nursery: trio.Nursery) -> None:
    consul = agent_bench(nursery).control.consul
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
        assert rejection(watch, value).reason == reason


async def test_no_watch_takes_an_answer_of_the_past(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """What expired, was removed or was denied before is not brought back, nor is a list emptied."""
    bench = agent_bench(nursery)
    root = bench.well()
    consul, published = bench.control.consul, list[object]()
    bench.consul.answer(HEALTH, body("health-connect-near"), index=8)
    bench.consul.answer(GATEWAYS, body("health-connect-near"), index=9)
    past = {
        ROOTS: roots_answer(Issuer.root(now=bench.control.clock())),
        LEAF: root.leaf(serial=0x0E).answer(),
        MATCH: {"web": [{"SourceName": "mallory", "DestinationName": "web", "Action": "allow"}]},
        HEALTH: [],
        GATEWAYS: [],
    }
    for path, value in past.items():
        bench.consul.answer(path, value, index=1)
        bench.consul.answer(path, text="ACL not found", status=403)
    watches: dict[str, object] = {
        ROOTS: roots_watch(consul, published.append),
        LEAF: leaf_watch(consul, "web", published.append),
        MATCH: intentions_watch(consul, "web", published.append),
        HEALTH: endpoints_watch(consul, ServiceDestination("db"), published.append),
        GATEWAYS: endpoints_watch(consul, Gateways("dc2"), published.append),
    }
    for number, (path, watch) in enumerate(watches.items(), 1):
        assert isinstance(watch, Watch)
        await one_answer(bench, watch)
        assert len(published) == number
        assert watch.status.failures == {"index_went_back": 1, "denied": 1}
        assert [asked.query.get("index") is None for asked in bench.consul.questions(path)] == [
            True,
            False,
            True,
        ]


@pytest.mark.parametrize("empty", [[], None])
async def test_an_empty_list_for_want_of_rights_is_no_list(
    nursery: trio.Nursery, autojump_clock: MockClock, empty: list[object] | None
) -> None:
    consul, cell = agent_bench(nursery).control.consul, Latest[EndpointSet]()
    for lookup, value in (
        (ServiceDestination("db"), empty),
        (Gateways("dc2"), empty),
        (QueryDestination("q"), {"Service": "db", "Nodes": empty}),
    ):
        watch = endpoints_watch(consul, lookup, cell.publish)
        assert rejection(watch, value, filtered=True).reason == "filtered_by_acls"
        found = reading(watch, value)
        assert isinstance(found, EndpointSet)
        assert not found.endpoints


async def test_a_list_shortened_for_want_of_rights_is_used(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = endpoints_watch(
        agent_bench(nursery).control.consul, ServiceDestination("db"), Latest[EndpointSet]().publish
    )
    found = reading(watch, body("health-connect-near"), filtered=True)
    assert isinstance(found, EndpointSet)
    assert found.endpoints


@pytest.mark.parametrize("value", [[], None, [{"SourceName": "a", "DestinationName": "web"}]])
async def test_a_list_of_intentions_that_is_not_whole_is_no_list(
    nursery: trio.Nursery, autojump_clock: MockClock, value: list[object] | None
) -> None:
    """What is missing may be a denial, and with a default that allows nothing else would deny."""
    consul = agent_bench(nursery).control.consul
    for watch in (
        intentions_watch(consul, "web", Latest[Intentions]().publish),
        source_intentions_watch(consul, "web", Latest[SourceIntentions]().publish),
    ):
        assert rejection(watch, value, filtered=True).reason == "filtered_by_acls"


def test_a_leaf_that_is_none_shows_nothing_of_its_key() -> None:
    with pytest.raises(AnswerRejected) as caught:
        read_leaf(Answer(value=LeafAnswer(cert_pem="", private_key_pem="key-text")))
    assert caught.value.reason == "bad_certificate"
    assert "key-text" not in str(caught.value)


def test_recorded_registrations_are_read() -> None:
    effective = read_registration(Answer(value=body("agent-service-sidecar")))
    assert (effective.proxy_id, effective.service) == ("web1-sidecar-proxy", "web")


async def test_how_each_upstream_is_watched(nursery: trio.Nursery) -> None:
    consul = agent_bench(nursery).control.consul
    cell: Latest[EndpointSet] = Latest()
    service = endpoints_watch(consul, ServiceDestination("db", "dc2"), cell.publish)
    query = endpoints_watch(consul, QueryDestination("near"), cell.publish, 5.0)
    assert (service.name, service.cursor) == ("endpoints db@dc2", Cursor.INDEX)
    assert (query.cursor, query.poll_interval) == (Cursor.POLL, 5.0)
