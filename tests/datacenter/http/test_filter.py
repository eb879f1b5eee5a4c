"""The filter language: what holds, what is refused."""

from __future__ import annotations

import pytest

from datacenter.http.filter import (
    CATALOG_SERVICE_SHAPE,
    HEALTH_SHAPE,
    MOST_DEPTH,
    SERVICE_SHAPE,
    compile_filter,
)
from datacenter.state.errors import ApiError

ENTRY = {
    "Node": {"Node": "n1", "Meta": {"rack": "r1"}, "Address": "10.0.0.1", "TaggedAddresses": {}},
    "Service": {
        "ID": "web-1",
        "Service": "web",
        "Port": 8080,
        "Tags": ["v1", "blue"],
        "Meta": {"version": "1.2", "a b": "c"},
        "EnableTagOverride": False,
        "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 1}},
        "Proxy": {"Upstreams": [{"DestinationName": "db"}, {"DestinationName": "cache"}]},
    },
    "Checks": [{"Name": "one", "Status": "passing"}, {"Name": "two", "Status": "warning"}],
}

HOLDS = [
    "",
    "Service.ID == web-1",
    'Service.ID == "web-1"',
    "Service.ID == `web-1`",
    "Service.Port == 8080",
    "Service.EnableTagOverride == false",
    "Service.ID != web-2",
    "v1 in Service.Tags",
    '"v2" not in Service.Tags',
    "Service.Tags contains blue",
    "Service.Tags not contains red",
    "Service.ID contains eb",
    "version in Service.Meta",
    'Service.Meta.version == "1.2"',
    'Service.Meta["a b"] == c',
    "Service.TaggedAddresses.wan.Address == 1.2.3.4",
    "Service.Proxy.Upstreams.DestinationName == cache",
    "Checks.Status == warning",
    "Checks.Status != critical",
    "Node.TaggedAddresses is empty",
    "Service.Tags is not empty",
    'Service.ID matches "^web-[0-9]$"',
    "Service.ID not matches db",
    "not Service.ID == x",
    "Service.ID == x or Service.Port == 8080",
    "Service.ID == x or Service.ID == y or Node.Node == n1",
    "Service.Port == 8080 and Node.Meta.rack == r1",
    "not (Service.ID == x or Service.ID == y)",
    "Service.ID == x and Service.ID == y or Node.Node == n1",
    r'Service.ID == "web\-1"',
]


@pytest.mark.parametrize("expression", HOLDS)
def test_holds(expression: str) -> None:
    assert compile_filter(expression, HEALTH_SHAPE)(ENTRY)


@pytest.mark.parametrize(
    "expression", [text for text in HOLDS if text and " or " not in text and " and " not in text]
)
def test_its_negation_does_not(expression: str) -> None:
    assert not compile_filter(f"not ({expression})", HEALTH_SHAPE)(ENTRY)


@pytest.mark.parametrize(
    "expression",
    [
        "Service.ID == web-2",
        "red in Service.Tags",
        "Service.Meta.missing == x",
        "Service.ID == x and Node.Node == n1",
    ],
)
def test_does_not_hold(expression: str) -> None:
    assert not compile_filter(expression, HEALTH_SHAPE)(ENTRY)


REFUSED = {
    "Nope == 1": 'Selector "Nope" is not valid',
    "Service.Nope == 1": 'Selector "Service.Nope" is not valid',
    "Service.ID.More == 1": 'Selector "Service.ID.More" is not valid',
    "x in Nope": 'Selector "Nope" is not valid',
    "Service.ID": "no match found",
    "Service.ID ==": "no match found",
    "Service.ID == a b": "no match found",
    "Service.ID is nice": "no match found",
    "Service.ID likes x": "no match found",
    "(Service.ID == a": "no match found",
    '"text" == Service.ID': "no match found",
    'Service.Meta["a b" == c': "no match found",
    'Service.ID == "open': "no match found",
    'Service.ID matches "["': "Failed to compile regular expression",
    "and": "Selector",
    "not " * (MOST_DEPTH + 1) + "Service.ID == a": "within one another",
    "(" * 5000 + "Service.ID == a" + ")" * 5000: "within one another",
}


@pytest.mark.parametrize(("expression", "text"), REFUSED.items(), ids=[key[:40] for key in REFUSED])
def test_refused(expression: str, text: str) -> None:
    with pytest.raises(ApiError, match="Failed to create boolean expression evaluator: ") as caught:
        compile_filter(expression, HEALTH_SHAPE)
    assert caught.value.status == 500
    assert text in caught.value.text


FIXED = {
    "Service.ID == a": {("Service", "ID"): "a"},
    "Service.ID == a and (Node.Node == n1)": {("Service", "ID"): "a", ("Node", "Node"): "n1"},
    "Service.ID == a and (Node.Node == n1 or Node.Node == n2)": {("Service", "ID"): "a"},
    "Service.ID == a or Node.Node == n1": {},
    "Service.ID != a": {},
    "not Service.ID == a and Node.Node == n1": {("Node", "Node"): "n1"},
    "not (Service.ID == a and Node.Node == n1)": {},
    "Service.ID matches a": {},
    "": {},
}


@pytest.mark.parametrize(("expression", "fixed"), FIXED.items())
def test_what_every_passing_document_has_is_fixed(expression: str, fixed: dict[tuple[str, ...], str]) -> None:
    assert compile_filter(expression, HEALTH_SHAPE).fixed == fixed


def test_shapes_of_the_other_lists() -> None:
    assert compile_filter('Kind == "connect-proxy"', SERVICE_SHAPE)({"Kind": "connect-proxy"})
    assert compile_filter("a in ServiceTags", CATALOG_SERVICE_SHAPE)({"ServiceTags": ["a"]})
