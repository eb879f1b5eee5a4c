"""One intention of an answer: decoded or raw, every field that Consul has had, and what is not understood."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from agent.policy.wire import Doubt, doubt_of, read_item
from tests.recorded import body

ITEM = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
KEPT = {
    "ID": "8b246146-8a86-4bf9-a2e0-cbf0cf67d8f0",
    "Description": "for the shop",
    "DefaultAddr": "",
    "DefaultPort": 0,
    "Hash": "JnM8AqTaBUYikLwkN1J2wfLqJ3IK+b5wEU99ktXWujY=",
    "CreatedAt": "2026-11-29T15:00:04.84683241Z",
    "UpdatedAt": "2026-11-29T15:00:04.84683241Z",
    "CreateIndex": 29,
    "ModifyIndex": 30,
}
PLAIN = {
    "SourceNS": "default",
    "DestinationNS": "default",
    "SourcePartition": "default",
    "DestinationPartition": "default",
    "SourcePeer": "",
    "SourceSamenessGroup": "",
    "SourceType": "consul",
    "Meta": {"external-source": "kubernetes"},
    "Precedence": 9,
    "Permissions": None,
    "JWT": None,
}


def doubt(**changes: Any) -> Doubt | None:
    return doubt_of(read_item({**ITEM, **changes}), "db")


def test_raw_and_decoded_are_the_same() -> None:
    assert read_item(msgspec.Raw(json.dumps(ITEM).encode())) == read_item(ITEM)


@pytest.mark.parametrize(
    "item", [{"SourceName": "web"}, {**ITEM, "SourceName": 1}, [], {**ITEM, "DestinationName": None}]
)
def test_what_does_not_name_two_services_is_an_error(item: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_item(item)


@pytest.mark.parametrize(
    "item",
    [
        b'{"SourceName":"\xff","DestinationName":"db"}',
        b'{"SourceName":"w","DestinationName":"db","Meta":%s1%s}' % (b"[" * 100_000, b"]" * 100_000),
    ],
)
def test_what_is_no_text_or_nested_too_deep_is_an_error_of_the_same_kind(item: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_item(msgspec.Raw(item))


def test_fields_that_keep_account_or_say_what_is_usual_are_understood() -> None:
    assert doubt(**KEPT, **PLAIN) is None


@pytest.mark.parametrize(
    "name", ["intention-match-dest", "intention-match-dest-precedence", "intention-match-l7"]
)
def test_recorded_answers_are_understood(name: str) -> None:
    for destination, items in body(name).items():
        assert [doubt_of(read_item(item), destination) for item in items] == [None] * len(items)


@pytest.mark.parametrize("name", ["DB", "Db", "*"])
def test_a_destination_in_another_case_is_ours(name: str) -> None:
    assert doubt(DestinationName=name) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SourceSamenessGroup": "all"}, "SourceSamenessGroup 'all'"),
        ({"SourcePeer": "east"}, "SourcePeer 'east'"),
        ({"Action": "log"}, "Action 'log'"),
        ({"Conditions": ["x"]}, "unknown fields 'Conditions'"),
        ({"b": 1, "a": None}, "unknown fields 'a', 'b'"),
        ({"action": "deny"}, "unknown fields 'action'"),
        ({"DestinationName": "cache"}, "DestinationName 'cache'"),
        ({"DestinationNS": "team"}, "DestinationNS 'team'"),
        ({"DestinationPartition": "other"}, "DestinationPartition 'other'"),
        ({"Permissions": {"HTTP": {}}}, "Expected `array | null`, got `object` - at `$.Permissions`"),
        ({"Action": None}, "Expected `str`, got `null` - at `$.Action`"),
    ],
)
def test_what_is_not_understood_still_means_its_source(changes: dict[str, Any], text: str) -> None:
    assert doubt(**changes) == Doubt(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SourceType": "external-uri"}, "SourceType 'external-uri'"),
        ({"SourceName": ""}, "SourceName is empty"),
        ({"SourceSelector": {"team": "a"}}, "unknown fields 'SourceSelector'"),
        ({"SourceType": 3}, "Expected `str`, got `int` - at `$.SourceType`"),
    ],
)
def test_what_is_not_understood_about_the_source_may_mean_anyone(changes: dict[str, Any], text: str) -> None:
    assert doubt(**changes) == Doubt(text, anyone=True)


def test_words_of_consul_are_shown_within_bounds() -> None:
    found = doubt(**{f"Field{number}{'x' * 500}": 1 for number in range(50)})
    assert found is not None
    assert len(found.text) < 500


@pytest.mark.parametrize(
    ("also", "anyone"),
    [
        ({}, False),
        ({"SourceType": "consul"}, False),
        ({"SourceType": "node"}, True),
        ({"SourceName": ""}, True),
        ({"SourceOfLater": "x"}, True),
    ],
)
def test_an_unknown_field_is_of_anyone_where_the_source_is_in_doubt_too(
    also: dict[str, object], anyone: bool
) -> None:
    found = doubt(Conditions={"After": "noon"}, **also)
    assert found is not None
    assert found.anyone is anyone
