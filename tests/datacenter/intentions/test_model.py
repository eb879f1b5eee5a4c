"""Intentions as they are printed, matched, ordered and decided."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from datacenter.intentions.config_entries import write_entry
from datacenter.intentions.entry import normalised
from datacenter.intentions.model import (
    Decision,
    all_intentions,
    decide,
    find_by_id,
    match_destination,
    match_source,
    ordered,
)
from datacenter.state.store import Store


@pytest.fixture
def store() -> Store:
    """Every form of rule about web and db."""
    store = Store()
    for destination, sources in {"db": ("web", "*", "api"), "*": ("web", "*"), "cache": ("web",)}.items():
        write(store, destination, *({"Name": name, "Action": "allow"} for name in sources))
    return store


def write(store: Store, destination: str, *sources: dict[str, Any], legacy: bool = False) -> None:
    entry = normalised({"Name": destination, "Sources": list(sources)}, legacy=legacy)
    write_entry(store, entry, legacy=legacy)


def ends(intentions: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(each["SourceName"], each["DestinationName"], each["Precedence"]) for each in intentions]


def test_a_destination_is_matched_by_its_own_rules_and_those_for_any(store: Store) -> None:
    expected = [("api", "db", 9), ("web", "db", 9), ("*", "db", 8), ("web", "*", 6), ("*", "*", 5)]
    assert ends(match_destination(store, "db")) == expected
    assert ends(match_destination(store, "unknown")) == expected[3:]
    assert ends(match_destination(store, "*")) == expected[3:]
    assert match_destination(Store(), "db") == []


def test_a_source_is_matched_by_its_own_rules_and_those_for_any(store: Store) -> None:
    assert ends(match_source(store, "web")) == [
        ("web", "cache", 9),
        ("web", "db", 9),
        ("*", "db", 8),
        ("web", "*", 6),
        ("*", "*", 5),
    ]


def test_the_order_does_not_depend_on_where_one_began(store: Store) -> None:
    listed = all_intentions(store)
    for shuffled in itertools.islice(itertools.permutations(listed), 50):
        assert ordered(shuffled) == listed


def test_an_intention_shows_the_indexes_of_its_entry_and_nothing_empty(store: Store) -> None:
    before = store.index
    write(store, "db", {"Name": "web", "Action": "deny", "Description": "d"})
    assert match_destination(store, "db")[0] == {
        "Description": "d",
        "SourceNS": "default",
        "SourceName": "web",
        "DestinationNS": "default",
        "DestinationName": "db",
        "SourceType": "consul",
        "Action": "deny",
        "Precedence": 9,
        "CreateIndex": 2,
        "ModifyIndex": before + 1,
    }


def test_a_legacy_intention_is_found_by_its_id_and_shows_its_own_meta() -> None:
    store = Store()
    times = {"LegacyCreateTime": "2026-01-01T00:00:00Z", "LegacyUpdateTime": "2026-01-02T00:00:00Z"}
    source = {"Name": "web", "Action": "allow", "LegacyID": "i", "LegacyMeta": {"k": "v"}, **times}
    write(store, "db", source, legacy=True)
    (shown,) = all_intentions(store)
    assert (shown["ID"], shown["Meta"], shown["UpdatedAt"]) == ("i", {"k": "v"}, times["LegacyUpdateTime"])
    assert find_by_id(store, "i") is not None
    assert find_by_id(store, "j") is None


def judge(store: Store, source: str, namespace: str = "default") -> Decision:
    rules = match_destination(store, "db")
    return decide(rules, source, namespace=namespace, default_allows=True, default_reason="default")


def test_the_first_match_decides() -> None:
    store = Store()
    write(store, "db", {"Name": "web", "Action": "allow"}, {"Name": "*", "Action": "deny"})
    assert judge(store, "web") == Decision(
        allowed=True,
        reason="Matched L4 intention: default/web => default/db (Precedence: 9, Action: ALLOW)",
    )
    assert judge(store, "api") == Decision(
        allowed=False, reason="Matched L4 intention: default/* => default/db (Precedence: 8, Action: DENY)"
    )
    assert not judge(store, "WEB").allowed  # names are compared exactly
    assert judge(store, "web", namespace="other") == Decision(allowed=True, reason="default")


def test_http_permissions_are_a_deny_at_this_layer() -> None:
    store = Store()
    write_entry(store, {"Kind": "service-defaults", "Name": "db", "Protocol": "http", "MeshGateway": {}})
    permission = {"Action": "allow", "HTTP": {"PathPrefix": "/"}}
    write(store, "db", {"Name": "web", "Permissions": [permission, permission]})
    assert judge(store, "web") == Decision(
        allowed=False,
        reason="Matched L7 intention: default/web => default/db (Precedence: 9, Permissions: 2)",
    )
