"""What Consul's weak decoder takes, and how it tells of what it does not."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import pytest

from datacenter.http.decode import ANYTHING, DURATION, Fields, Mapped, Shape
from datacenter.http.weak_decode import WeaklyMalformed, decode_weakly, go_kind

INNER = Fields("Inner", {"Name": str, "MaxCount": int})
THING = Fields(
    "Thing",
    {
        "Text": str,
        "Number": int,
        "Rate": float,
        "IsOn": bool,
        "Life": DURATION,
        "Inner": INNER,
        "Inners": [INNER],
        "Tags": [str],
        "Meta": Mapped(str),
        "Opaque": Mapped(ANYTHING),
        "Any": ANYTHING,
    },
)


@pytest.mark.parametrize(
    ("key", "given", "taken"),
    [
        ("text", 7, "7"),
        ("Text", 2.5, "2.5"),
        ("Text", True, "1"),
        ("Text", False, "0"),
        ("Text", ["a"], "a"),
        ("Number", "3", 3),
        ("Number", "", 0),
        ("Number", 3.9, 3),
        ("Number", True, 1),
        ("Rate", "2.5", 2.5),
        ("Rate", 2, 2),
        ("is_on", "true", True),
        ("IsOn", 0, False),
        ("Life", "1m", 60 * 10**9),
        ("Life", 5, 5),
        ("Inner", [{"name": "a"}], {"Name": "a"}),
        ("Inner", {"max_count": "3", "Name": None}, {"MaxCount": 3}),
        ("Inners", {"Name": "a"}, [{"Name": "a"}]),
        ("Inners", {}, []),
        ("Tags", "a", ["a"]),
        ("Tags", [1, "b"], ["1", "b"]),
        ("Text", [None], ""),
        ("Life", [None], 0),
        ("Inners", [None], [{}]),
        ("Tags", [None], [""]),
        ("Inner", [None], {}),
        ("Meta", {"a": 1, "b": None}, {"a": "1"}),
        ("Meta", [], {}),
        ("Opaque", {"a": None, "b": {"c": [1]}}, {"a": None, "b": {"c": [1]}}),
        ("Any", {"a": 1}, {"a": 1}),
    ],
)
def test_values_are_taken_for_what_they_can_be(key: str, given: object, taken: object) -> None:
    assert list(decode_weakly({key: given}, THING).values()) == [taken]


UNCONVERTIBLE = "'{}' expected type '{}', got unconvertible type '{}', value: '{}'"
SYNTAX = "cannot parse '{}' as {}: strconv.{}: parsing {}: invalid syntax"
MAP, SLICE = "map[string]interface {}", "[]interface {}"


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        ({"Inner": "x"}, "'Inner' expected a map, got 'string'"),
        ({"Inner": [1]}, "'Inner' expected a map, got 'float64'"),
        ({"Inner": []}, "'Inner' expected a map, got 'slice'"),
        ({"Inner": True}, "'Inner' expected a map, got 'bool'"),
        ({"Inners": "x"}, "'Inners[0]' expected a map, got 'string'"),
        ({"Inners": [{}, 1]}, "'Inners[1]' expected a map, got 'float64'"),
        ({"Opaque": "x"}, "'Opaque' expected a map, got 'string'"),
        ({"Meta": {"a": {}}}, UNCONVERTIBLE.format("Meta[a]", "string", MAP, "map[]")),
        ({"Text": []}, UNCONVERTIBLE.format("Text", "string", SLICE, "[]")),
        (
            {"Number": {"b": [1, None], "a": False}},
            UNCONVERTIBLE.format("Number", "int", MAP, "map[a:false b:[1 <nil>]]"),
        ),
        ({"Inners": [{"MaxCount": "x"}]}, SYNTAX.format("Inners[0].MaxCount", "int", "ParseInt", '"x"')),
        ({"Rate": "nan"}, SYNTAX.format("Rate", "float", "ParseFloat", '"nan"')),
        ({"IsOn": "yes"}, SYNTAX.format("IsOn", "bool", "ParseBool", '"yes"')),
        ({"Life": "soon"}, "error decoding 'Life': time: invalid duration \"soon\""),
    ],
)
def test_a_mistake_is_told_by_its_path(given: object, mistake: str) -> None:
    with pytest.raises(WeaklyMalformed) as caught:
        decode_weakly(given, THING)
    assert str(caught.value) == f"1 error(s) decoding:\n\n* {mistake}"


def test_all_mistakes_are_told_at_once_and_hide_keys_that_are_not_known() -> None:
    with pytest.raises(WeaklyMalformed) as caught:
        decode_weakly({"Inner": 1, "IsOn": "x", "Bogus": 1}, THING)
    assert str(caught.value).splitlines()[0] == "2 error(s) decoding:"
    assert "Bogus" not in str(caught.value)


def test_keys_that_are_not_known_are_told_by_their_path() -> None:
    given = {"Bogus": 1, "Inners": [{"Foo": 1}]}
    with pytest.raises(WeaklyMalformed) as caught:
        decode_weakly(given, THING)
    listed = '2 errors occurred:\n\t* invalid config key "Bogus"\n\t* invalid config key "Inners[0].Foo"\n\n'
    assert str(caught.value) == listed
    assert decode_weakly(given, THING, known=False) == {"Inners": [{}]}


@pytest.mark.parametrize(("value", "kind"), [({}, "map"), ([], "slice"), (1, "float64"), ("", "string")])
def test_go_has_another_name_for_each_kind(value: object, kind: str) -> None:
    assert go_kind(value) == kind


@pytest.mark.parametrize("shape", [str, int, float, bool, DURATION])
@pytest.mark.parametrize("value", [[[]], [1, 2], {"a": 1}, 10**30, -1e300, "\ud800", "9" * 5000, " 1", "1_0"])
def test_no_value_is_beyond_it(shape: Shape, value: object) -> None:
    with suppress(WeaklyMalformed):
        (taken,) = decode_weakly({"Key": value}, Fields("", {"Key": shape})).values()
        assert isinstance(taken, (int, float) if shape in {float, DURATION} else cast("type", shape))
