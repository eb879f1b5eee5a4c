"""A worker's sources: the main process fills them, and asks Consul again for them."""

from __future__ import annotations

import pytest

from agent.workers.endpoints import HandedSources
from agent.workers.messages import HandedEndpoints
from agent.workers.reports import AskedAgain, GatewaysWanted, RefusalsUnexplained
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, Lookup, QueryDestination, ServiceDestination

DB = ServiceDestination("db")
QUERY = QueryDestination("near")


def handed(
    lookup: Lookup, *names: str, number: int = 1, failing: str = "", known: bool = True
) -> HandedEndpoints:
    endpoints = EndpointSet(endpoints=tuple(endpoint(name) for name in names)) if known else None
    polled = isinstance(lookup, QueryDestination)
    return HandedEndpoints(
        number=number, lookup=lookup, poll_interval=None, polled=polled, endpoints=endpoints, failing=failing
    )


@pytest.fixture
def said() -> list[object]:
    return []


@pytest.fixture
def feeds(said: list[object]) -> HandedSources:
    return HandedSources(said.append)


def test_a_source_is_there_before_its_news_and_stays_the_same(
    feeds: HandedSources, said: list[object]
) -> None:
    source = feeds.source(DB, 5.0)  # a service is never polled
    assert source.endpoints.version == 0
    source.ask_again()  # nobody to ask yet
    assert said == []
    feeds.take(handed(DB, "a"))
    assert feeds.source(DB, None) is source
    assert source.endpoints.version == 1
    source.ask_again()
    assert said == [AskedAgain(1)]


def test_a_failure_alone_is_no_news_of_endpoints(feeds: HandedSources) -> None:
    feeds.take(handed(DB, "a"))
    source = feeds.source(DB, None)
    feeds.take(handed(DB, "a", failing="Consul is away"))
    assert source.endpoints.version == 1
    assert "Consul is away" in str(source.status.failing)
    feeds.take(handed(DB, "a"))
    assert not source.status.failing
    feeds.take(handed(DB, known=False))
    assert source.endpoints.version == 1


def test_gateways_are_wanted_when_they_are_looked_for(feeds: HandedSources, said: list[object]) -> None:
    feeds.source(Gateways("dc2"), None)
    feeds.source(Gateways("dc2"), None)
    feeds.source(QUERY, None)
    assert said == [GatewaysWanted("dc2")]


def test_a_refusal_is_explained_by_the_control_process(feeds: HandedSources, said: list[object]) -> None:
    feeds.explain_refusals()
    assert said == [RefusalsUnexplained()]


def test_what_is_dropped_is_forgotten_unless_it_is_back_under_another_number(feeds: HandedSources) -> None:
    feeds.take(handed(QUERY, "a"))
    source = feeds.source(QUERY, None)
    assert source.polled
    feeds.take(handed(QUERY, "b", number=2))
    feeds.drop(1)
    assert feeds.source(QUERY, None) is source
    feeds.drop(2)
    feeds.drop(2)
    assert feeds.source(QUERY, None) is not source
    feeds.want(())
