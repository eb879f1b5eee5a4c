"""One intention of an answer: decoded or raw, and whether it can decide here."""

from __future__ import annotations

import json

import msgspec
import pytest

from agent.policy.wire import can_decide, read_item

ITEM = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}


def test_raw_and_decoded_are_the_same() -> None:
    assert read_item(msgspec.Raw(json.dumps(ITEM).encode())) == read_item(ITEM)


@pytest.mark.parametrize("item", [{"SourceName": "web"}, {**ITEM, "SourceName": 1}, []])
def test_another_shape_is_an_error(item: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_item(item)


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True),
        ({"DestinationName": "*"}, True),
        ({"DestinationName": "DB"}, False),
        ({"SourcePeer": "east"}, False),
        ({"SourceSamenessGroup": "all"}, False),
        ({"SourceNS": "team"}, False),
        ({"DestinationPartition": "other"}, False),
    ],
)
def test_only_what_speaks_of_us_can_decide(changes: dict[str, str], can: bool) -> None:
    assert can_decide(read_item({**ITEM, **changes}), "db") is can
