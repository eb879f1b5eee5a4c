"""Request bodies: spellings that are accepted, mistakes and their texts."""

from __future__ import annotations

import json

import pytest

from datacenter.http.decode import ANYTHING, DURATION, MOST_DEPTH, Fields, Mapped, decode
from datacenter.state.errors import ApiError

THING = Fields(
    "Thing",
    {
        "Name": str,
        "Port": int,
        "Weight": float,
        "IsOn": bool,
        "Tags": [str],
        "Meta": Mapped(str),
        "Config": ANYTHING,
        "Opaque": Mapped(ANYTHING),
        "Header": Mapped([str]),
        "Loose": Fields("Loose", {"TTL": DURATION}, drops_unknown=True),
        "Interval": DURATION,
        "InnerThing": Fields("Inner", {"LocalPort": int}),
    },
    {"title": "Name"},
)


@pytest.mark.parametrize("key", ["InnerThing", "inner_thing", "INNERTHING", "innerThing"])
def test_keys_match_whatever_their_spelling(key: str) -> None:
    assert _decoded({key: {"local_port": 1}}) == {"InnerThing": {"LocalPort": 1}}


def test_another_name_for_a_key() -> None:
    assert _decoded({"Title": "x"}) == {"Name": "x"}


def test_null_is_as_good_as_absent() -> None:
    assert _decoded(None) == {}
    assert _decoded({"Name": None, "Meta": {"a": None, "b": "c"}}) == {"Meta": {"b": "c"}}


def test_keys_of_the_client_are_left_alone() -> None:
    given = {"Meta": {"my_key": "v"}, "Config": {"a_b": {"c_d": [1, None]}}, "Opaque": {"a_b": None}}
    assert _decoded(given) == given


def test_keys_that_are_not_known_are_dropped_where_consul_drops_them() -> None:
    assert _decoded({"Loose": {"ttl": "1s", "Bogus": 1}}) == {"Loose": {"TTL": 1.0}}


@pytest.mark.parametrize(("value", "seconds"), [("10s", 10.0), (2_500_000_000, 2.5), (0, 0.0)])
def test_durations_are_texts_or_nanoseconds(value: object, seconds: float) -> None:
    assert _decoded({"Interval": value}) == {"Interval": seconds}


def test_numbers_take_their_kind() -> None:
    assert _decoded({"Port": 5.0, "Weight": 1}) == {"Port": 5, "Weight": 1}


FIELD = "json: cannot unmarshal {} into Go struct field Thing.{} of type {}"
REFUSED = {
    "": "EOF",
    "  ": "EOF",
    '{"Name":': "unexpected EOF",
    '{"Name":"x': "unexpected EOF",
    '{"Name" "x"}': "invalid character '\"' after object key",
    '{"Name":"x" "Port":1}': "invalid character '\"' after object key:value pair",
    '{"Name":"x",}': "invalid character '}' looking for beginning of object key string",
    '{"Tags":["x", ]}': "invalid character ']' looking for beginning of value",
    "{'Name':1}": "invalid character '\\'' looking for beginning of object key string",
    '{"Name":x}': "invalid character 'x' looking for beginning of value",
    "[]": "json: cannot unmarshal array into Go value of type structs.Thing",
    '{"Bogus":1}': 'json: unknown field "Bogus"',
    '{"InnerThing":{"x":1}}': 'json: unknown field "x"',
    '{"Port":"1"}': FIELD.format("string", "Port", "int"),
    '{"Port":1.5}': FIELD.format("number", "Port", "int"),
    '{"IsOn":1}': FIELD.format("number", "IsOn", "bool"),
    '{"Name":true}': FIELD.format("bool", "Name", "string"),
    '{"Tags":"a"}': FIELD.format("string", "Tags", "[]string"),
    '{"Tags":[1]}': FIELD.format("number", "Tags", "string"),
    '{"Meta":[]}': FIELD.format("array", "Meta", "map[string]string"),
    '{"Opaque":"x"}': FIELD.format("string", "Opaque", "map[string]interface {}"),
    '{"Header":{"a":"x"}}': FIELD.format("string", "Header", "[]string"),
    '{"Header":1}': FIELD.format("number", "Header", "map[string][]string"),
    '{"InnerThing":1}': FIELD.format("number", "InnerThing", "structs.Inner"),
    '{"Interval":true}': FIELD.format("bool", "Interval", "time.Duration"),
    '{"Interval":"soon"}': 'time: invalid duration "soon"',
    '{"Name":NaN}': "invalid character 'N' looking for beginning of value",
    '{"Weight":-Infinity}': "invalid character 'I' looking for beginning of value",
    '{"Weight":1e400}': "json: cannot unmarshal number 1e400 into Go value of type float64",
    '{"Port":9223372036854775808}': FIELD.format("number 9223372036854775808", "Port", "int"),
    '{"Interval":1e19}': FIELD.format("number", "Interval", "time.Duration"),
}


@pytest.mark.parametrize(("body", "text"), REFUSED.items())
def test_mistakes(body: str, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode(body.encode(), THING)
    assert (caught.value.status, caught.value.text) == (400, f"Request decode failed: {text}")


def test_what_follows_the_first_value_is_not_looked_at() -> None:
    assert decode(b' {"Name":"x"} trailing', THING) == {"Name": "x"}


def test_a_type_without_a_name() -> None:
    nameless = Fields("", {"Port": int})
    for body, text in (
        (b'{"Port":"1"}', "json: cannot unmarshal string into Go struct field .Port of type int"),
        (b"[]", "json: cannot unmarshal array into Go value of type struct"),
    ):
        with pytest.raises(ApiError) as caught:
            decode(body, nameless)
        assert caught.value.text == f"Request decode failed: {text}"


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ApiError):
        decode(b"\xff\xfe", THING)


@pytest.mark.parametrize("levels", [MOST_DEPTH, 1000, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_what_is_nested_too_deep_is_refused(pair: str, levels: int) -> None:
    body = '{"Config":' + pair[:-1] * levels + "0" + pair[-1] * levels + "}"
    with pytest.raises(ApiError) as caught:
        decode(body.encode(), THING)
    assert (caught.value.status, caught.value.text) == (400, "Request decode failed: exceeded max depth")


def test_what_is_nested_less_deep_is_taken() -> None:
    levels = MOST_DEPTH - 1
    config = decode(b'{"Config":' + b"[" * levels + b"]" * levels + b"}", THING)["Config"]
    assert json.dumps(config) == "[" * levels + "]" * levels


def test_half_a_surrogate_pair_is_replaced() -> None:
    body = rb'{"Name": "\ud800 \ud83d\ude00 \udc00", "Meta": {"\uD800": "a"}}'
    assert decode(body, THING) == {"Name": "� 😀 �", "Meta": {"�": "a"}}


def _decoded(value: object) -> object:
    return decode(json.dumps(value).encode(), THING)
