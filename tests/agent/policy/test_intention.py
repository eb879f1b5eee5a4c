"""One rule: what it was written to do, and that it denies whom it may mean where it is not understood."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import permutations
from typing import Any

import pytest

from agent.policy.intention import BEYOND_ALL, Effect, Intention, deciding_order, read_rule
from agent.policy.narrowing import Narrowing
from agent.policy.wire import read_item
from certs.spiffe import DEFAULT

ITEM = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}


def rule(**changes: Any) -> Intention | None:
    return read_rule(read_item({**ITEM, **changes}), "db")


@pytest.mark.parametrize(
    ("names", "precedence"),
    [
        (("default", "web", "default", "db"), 9),
        (("default", "*", "default", "db"), 8),
        (("*", "*", "default", "db"), 7),
        (("default", "web", "default", "*"), 6),
        (("default", "*", "default", "*"), 5),
        (("*", "*", "default", "*"), 4),
        (("default", "web", "*", "*"), 3),
        (("default", "*", "*", "*"), 2),
        (("*", "*", "*", "*"), 1),
    ],
)
def test_precedence(names: tuple[str, str, str, str], precedence: int) -> None:
    source_namespace, source, destination_namespace, destination = names
    intention = Intention(
        source=source,
        destination=destination,
        effect=Effect.ALLOW,
        source_namespace=source_namespace,
        destination_namespace=destination_namespace,
    )
    assert intention.precedence == precedence


def test_a_rule_that_is_understood_has_no_doubt() -> None:
    found = rule(Precedence=9, SourcePartition="Sales")
    assert found == Intention(source="web", destination="db", effect=Effect.ALLOW, source_partition="sales")


@pytest.mark.parametrize("stated", [1, 8, 10])
def test_a_precedence_that_is_not_ours_is_not_understood_and_the_higher_one_counts(stated: int) -> None:
    found = rule(Precedence=stated)
    assert found is not None
    assert found.doubt == f"Precedence {stated}, which we make 9"
    assert found.precedence == max(9, stated)


@pytest.mark.parametrize(("destination", "precedence"), [("db", 9), ("*", 6)])
def test_whom_anyone_may_be_meant_by_has_the_precedence_of_an_exact_source(
    destination: str, precedence: int
) -> None:
    found = rule(SourceName="*", SourceType="uri", DestinationName=destination)
    assert found is not None
    assert (found.source_partition, found.source_namespace, found.source) == ("*", "*", "*")
    assert found.precedence == precedence
    assert str(found) == (
        f"* => {destination} (allow, precedence {precedence}, not understood: SourceType 'uri' of source '*')"
    )


@pytest.mark.parametrize(
    ("changes", "precedence"),
    [
        ({"SourceNS": "", "DestinationNS": ""}, 9),
        ({"SourceNS": "*", "SourceName": "*", "Precedence": 7}, 7),
        ({"SourceNS": "*", "SourceName": "*", "DestinationNS": "*", "DestinationName": "*"}, 1),
    ],
)
def test_empty_namespaces_are_the_default_one_and_a_wildcard_is_less_exact(
    changes: dict[str, Any], precedence: int
) -> None:
    found = rule(**changes)
    assert found is not None
    assert (found.doubt, found.precedence) == ("", precedence)
    assert found.source_namespace == (changes["SourceNS"] or DEFAULT)
    assert found.destination_namespace == (changes.get("DestinationNS") or DEFAULT)


@pytest.mark.parametrize(
    ("changes", "origin", "destination", "precedence"),
    [
        ({}, ("*", DEFAULT, "web"), DEFAULT, 9),
        ({"SourceNS": "", "DestinationNS": ""}, ("*", DEFAULT, "web"), DEFAULT, 9),
        ({"SourceNS": "team", "SourceName": "*"}, ("*", "team", "*"), DEFAULT, 8),
        ({"SourceNS": "*", "SourceName": "*"}, ("*", "*", "*"), DEFAULT, 7),
        ({"DestinationNS": "*", "DestinationName": "*"}, ("*", DEFAULT, "web"), "*", 3),
        ({"Precedence": 10}, ("*", DEFAULT, "web"), DEFAULT, 10),
        ({"Precedence": 10**9}, ("*", DEFAULT, "web"), DEFAULT, BEYOND_ALL),
    ],
)
def test_what_is_not_understood_keeps_its_namespaces_and_the_place_they_give_it(
    changes: dict[str, Any], origin: tuple[str, str, str], destination: str, precedence: int
) -> None:
    found = rule(Action="audit", **changes)
    assert found is not None
    assert found.doubt == "Action 'audit'"
    assert (found.origin, found.destination_namespace, found.precedence) == (origin, destination, precedence)


def test_an_allowance_for_a_peer_is_for_no_caller_of_ours_and_a_denial_for_those_of_other_datacenters() -> (
    None
):
    assert rule(SourcePeer="east") is None
    for denial in (
        rule(SourcePeer="east", Action="deny"),
        rule(SourcePeer="east", Action="", Permissions=[{}]),
    ):
        assert denial is not None
        assert (denial.of_peer, denial.doubt) == (True, "SourcePeer 'east'")


def test_of_two_rules_of_one_place_the_one_that_is_not_understood_comes_first_then_the_stricter() -> None:
    wanted = [
        rule(Conditions=[1]),
        rule(Permissions=[{}], DestinationName="dB"),
        rule(Action="deny", DestinationName="DB"),
        rule(Permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}], DestinationName="dB"),
        rule(DestinationName="Db"),
    ]
    rules = [one for one in wanted if one is not None]
    for order in (rules, rules[::-1]):
        assert sorted(order, key=deciding_order) == rules


def test_of_two_rules_as_strict_the_same_one_decides_whatever_the_order_of_the_answer() -> None:
    pairs: list[list[list[Any]]] = [
        [[{}], [None]],  # neither can be read
        [[{"Action": action, "HTTP": {"PathPrefix": "/"}}] for action in ("allow", "deny")],
    ]
    for permissions in pairs:
        rules = [one for one in (rule(Permissions=each) for each in permissions) if one is not None]
        assert min(rules, key=deciding_order) == min(rules[::-1], key=deciding_order)
    doubtful = [one for one in (rule(Conditions=[1], Action=each) for each in ("allow", "deny")) if one]
    assert min(doubtful, key=deciding_order) == min(doubtful[::-1], key=deciding_order)
    elsewhere = [one for one in (rule(Bogus=[], DestinationNS=each) for each in ("", "d")) if one]
    assert min(elsewhere, key=deciding_order) == min(elsewhere[::-1], key=deciding_order)


def test_of_two_rules_of_one_place_the_narrowed_one_decides_whatever_the_order_of_the_answer() -> None:
    metas: tuple[dict[str, Any], ...] = (
        {},
        {"source_datacenters": "dc1"},
        {"source_datacenters": "dc2,dc1"},
        {"SOURCE_datacenter": 6},
    )
    rules = [one for one in (rule(Meta=each) for each in metas) if one is not None]
    assert len(rules) == len(metas)
    for pair in permutations(rules, 2):
        first = min(pair, key=deciding_order)
        assert first == min(pair[::-1], key=deciding_order)
        assert first.narrowings


def test_no_field_is_left_out_of_the_order() -> None:
    plain = rule()
    assert plain is not None
    permitted = rule(Permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}])
    assert permitted is not None
    others: dict[str, Any] = {
        **dict.fromkeys(("source", "destination", "source_namespace", "source_partition"), "x"),
        **dict.fromkeys(("destination_namespace", "doubt", "id"), "x"),
        "effect": Effect.DENY,
        "permissions": permitted.permissions,
        "at_least": 1,
        "of_peer": True,
        "narrowings": (Narrowing(sources=frozenset({"dc1"})),),
    }
    assert {field.name for field in fields(Intention)} == others.keys()
    for name, value in others.items():
        assert deciding_order(replace(plain, **{name: value})) != deciding_order(plain), name


def test_a_json_web_token_is_not_verified_whatever_is_asked_of_it() -> None:
    for requirement in ({"Providers": [{"Name": "okta"}]}, {}):
        found = rule(JWT=requirement)
        assert found is not None
        assert found.permissions is not None
        assert found.permissions.unreadable is not None
