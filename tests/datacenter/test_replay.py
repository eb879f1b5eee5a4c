"""The replay itself: it sees every kind of difference, and only what cannot be the same is forgiven."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from datacenter.http.frame import RawReply
from tests.datacenter.replay import Case, compare, recorded, shape
from tests.datacenter.world import world_b

CASE = Case(recording="health-connect-filter", world=world_b, request="")
Change = Callable[[Any], object]


def served(change: Change = bool, headers: Mapping[str, str] | None = None) -> RawReply:
    """The recorded answer as if it were served, with its first entry changed."""
    expected = recorded(CASE.recording)
    value = json.loads(expected.body)
    change(value[0])
    return RawReply(
        status=200, headers={**expected.headers, **(headers or {})}, body=json.dumps(value).encode()
    )


def test_the_recording_is_its_own_equal() -> None:
    compare(recorded(CASE.recording), served(), CASE)


DIFFERENCES: dict[str, Change] = {
    "a missing key": lambda entry: entry["Service"].pop("Port"),
    "one too many": lambda entry: entry["Service"].update(SocketPath=""),
    "another value": lambda entry: entry["Service"].update(Port=1),
    "another type": lambda entry: entry["Service"].update(Port="21010"),
    "null for an empty list": lambda entry: entry["Service"].update(Tags=None),
    "an empty object for null": lambda entry: entry["Service"].update(Meta={}),
    "another order": lambda entry: entry["Checks"].reverse(),
    "one element too few": lambda entry: entry["Checks"].pop(),
    "no index where there was one": lambda entry: entry["Node"].update(CreateIndex=0),
    "no UUID where there was one": lambda entry: entry["Node"].update(ID="b2"),
}


@pytest.mark.parametrize("change", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_in_the_body(change: Change) -> None:
    with pytest.raises(AssertionError):
        compare(recorded(CASE.recording), served(change), CASE)


FORGIVEN: dict[str, Change] = {
    "another UUID": lambda entry: entry["Node"].update(ID="99786e67-08ac-7b21-c368-aeb767517d2e"),
    "another index": lambda entry: entry["Node"].update(CreateIndex=12345),
}


@pytest.mark.parametrize("change", FORGIVEN.values(), ids=FORGIVEN)
def test_what_cannot_be_the_same_twice(change: Change) -> None:
    compare(recorded(CASE.recording), served(change, {"x-consul-index": "7"}), CASE)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-more": "1"},
        {"x-consul-knownleader": "false"},
        {"x-consul-index": "1"},
        {"content-type": "text/plain"},
    ],
)
def test_a_difference_in_the_headers(headers: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        compare(recorded(CASE.recording), served(headers=headers), CASE)


def test_a_missing_header() -> None:
    reply = served()
    less = {name: value for name, value in reply.headers.items() if name != "vary"}
    with pytest.raises(AssertionError):
        compare(recorded(CASE.recording), replace(reply, headers=less), CASE)


def test_status_and_text_of_an_error() -> None:
    expected = recorded("health-connect-bad-dc")
    reply = RawReply(status=500, headers=expected.headers, body=expected.body.encode())
    compare(expected, reply, CASE)
    for other in (replace(reply, status=404), replace(reply, body=b"No path")):
        with pytest.raises(AssertionError):
            compare(expected, other, CASE)


def test_shapes() -> None:
    assert shape({"Reason": "ID: 99786e67-08ac-7b21-c368-aeb767517d2e, Precedence: 9"}) == {
        "Reason": "ID: <uuid>, Precedence: 9"
    }
    assert shape({"ContentHash": "b70505b94263bf20"}) == {"ContentHash": "<hash>"}
    assert shape({"ContentHash": "short"}) == {"ContentHash": "short"}
    assert shape({"CreateIndex": 0, "ModifyIndex": 3}) == {"CreateIndex": 0, "ModifyIndex": "<index>"}
    assert shape({"At": "2026-11-22T20:42:40.53852091Z"}) == {"At": "<time>"}
