"""Answers Consul would not send: rejected with the field named, or borne; what is borne can be used."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.mutations import Mutated, anything, mutated
from tests.upstreams.test_choose import Stopwatch
from upstreams.answers import InvalidAnswer, parse_health, parse_query
from upstreams.choose import Chance, candidates
from upstreams.ejection import FailureMemory
from upstreams.endpoints import EndpointSet
from upstreams.reach import Unreachable, doubt, reach
from upstreams.spec import WanMode

ENTRY: dict[str, Any] = {
    "Node": {
        "Node": "n1",
        "Address": "10.0.0.1",
        "Datacenter": "dc2",
        "TaggedAddresses": {"lan": "10.0.0.1", "wan": "192.0.2.1"},
    },
    "Service": {
        "Kind": "connect-proxy",
        "ID": "db-1-proxy",
        "Service": "db-proxy",
        "Address": "10.0.0.1",
        "Port": 20000,
        "TaggedAddresses": {"wan": {"Address": "192.0.2.1", "Port": 443}, "lan_ipv4": {"Port": 20000}},
        "Weights": {"Passing": 3, "Warning": 1},
        "Proxy": {"DestinationServiceName": "db"},
        "Connect": {"Native": False},
    },
    "Checks": [{"Status": "passing"}, {"Status": "warning"}],
}
HEALTH = [ENTRY, copy.deepcopy(ENTRY)]
QUERY = {"Service": "db", "Nodes": HEALTH, "Datacenter": "dc2", "Failovers": 1, "DNS": {"TTL": "10s"}}


def usable(found: EndpointSet) -> None:
    """Whatever was borne, addresses and the order to try them can be found out."""
    for endpoint in found.endpoints:
        for wan in WanMode:
            try:
                dialling = reach(endpoint, own_datacenter="dc1", wan=wan)
            except Unreachable:
                continue
            assert dialling.host
            assert 1 <= dialling.port <= 65535
            doubt(endpoint, dialling)
    memory = FailureMemory(Stopwatch())
    tried = list(candidates(found, memory, Chance(Random(1)), Counter()))
    assert len(tried) == sum(len(tier.endpoints) for tier in found.tiers)


def named(error: InvalidAnswer, change: Mutated) -> None:
    """The text says where: the changed place, within it, or its holder and which field is not there."""
    text = str(error)
    found = re.search(r"`(\$[^`]*)`", text)
    where = found[1] if found else "$"
    at = re.sub(r"(TaggedAddresses)\.\w+", r"\1[...]", change.at)
    holder, _, field = at.rpartition(".")
    assert where.startswith(at) or (where in (holder, "$") and f"`{field}`" in text), (text, at)


def said(error: InvalidAnswer, form: str) -> None:
    assert re.fullmatch(form, str(error)), error


@given(mutated(HEALTH))
def test_a_health_answer_is_rejected_by_its_field_or_borne(change: Mutated) -> None:
    raw = [msgspec.Raw(json.dumps(item).encode()) for item in change.document]
    try:
        found = parse_health(change.document)
    except InvalidAnswer as error:
        named(error, change)
    else:
        usable(found)
    try:
        parse_health(raw)
    except InvalidAnswer as error:
        named(error, change)


@given(mutated(QUERY))
def test_a_query_answer_is_rejected_by_its_field_or_borne(change: Mutated) -> None:
    try:
        found = parse_query(change.document)
    except InvalidAnswer as error:
        named(error, change)
    else:
        usable(found)
        assert found.ttl is None or found.ttl > 0


@given(st.lists(anything, max_size=3))
def test_anything_at_all_is_no_health_answer_or_an_empty_one(answer: list[Any]) -> None:
    try:
        found = parse_health(answer)
    except InvalidAnswer as error:
        said(error, r"health answer: .* - at `\$\[\d+\].*`")
    else:
        usable(found)


@given(st.dictionaries(st.sampled_from(["Service", "Nodes", "Datacenter", "DNS", "Failovers"]), anything))
def test_anything_at_all_is_no_query_answer_or_an_empty_one(answer: dict[str, Any]) -> None:
    try:
        usable(parse_query(answer))
    except InvalidAnswer as error:
        said(error, r"query answer: .* - at `\$\..*`")
