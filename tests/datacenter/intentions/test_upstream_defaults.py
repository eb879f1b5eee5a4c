"""What service-defaults may say of a service's upstreams, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datacenter.intentions.config_entries import read_entry, write_entry
from datacenter.intentions.upstream_defaults import mistakes, normalised
from datacenter.state.errors import ApiError
from datacenter.state.store import Store


def read(settings: object) -> dict[str, Any]:
    body = {"Kind": "service-defaults", "Name": "web", "UpstreamConfig": settings}
    return read_entry(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ("x", "'UpstreamConfig' expected a map, got 'string'"),
        ([1], "'UpstreamConfig' expected a map, got 'float64'"),
        ({"Defaults": "x"}, "'UpstreamConfig.Defaults' expected a map, got 'string'"),
        ({"Overrides": ["x"]}, "'UpstreamConfig.Overrides[0]' expected a map, got 'string'"),
        ({"Defaults": {"Limits": "x"}}, "'UpstreamConfig.Defaults.Limits' expected a map, got 'string'"),
        (
            {"Defaults": {"Limits": {"MaxConnections": "x"}}},
            (
                "cannot parse 'UpstreamConfig.Defaults.Limits.MaxConnections' as int: "
                'strconv.ParseInt: parsing "x": invalid syntax'
            ),
        ),
        (
            {"Defaults": {"PassiveHealthCheck": {"Interval": "x"}}},
            (
                "error decoding 'UpstreamConfig.Defaults.PassiveHealthCheck.Interval': "
                'time: invalid duration "x"'
            ),
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_400_and_named_by_its_path(settings: object, mistake: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(settings)
    text = f"Bad request: Request decoding failed: 1 error(s) decoding:\n\n* {mistake}"
    assert (caught.value.status, caught.value.text) == (400, text)


def test_a_key_that_is_not_known_is_400() -> None:
    with pytest.raises(ApiError) as caught:
        read({"Overrides": [{"Foo": 1}]})
    assert caught.value.text.endswith('* invalid config key "UpstreamConfig.Overrides[0].Foo"\n\n')


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"Overrides": [{"Protocol": "http"}]}, "error in upstream override for : Name is required"),
        (
            {"Overrides": [{"Name": "*"}]},
            "error in upstream override for *: Wildcard name is not supported",
        ),
        ({"Defaults": {"Name": "x"}}, "error in upstream defaults: Name must be empty"),
        (
            {"Defaults": {"Limits": {"MaxConnections": -3}}},
            "error in upstream defaults: 1 error occurred:\n\t* max connections cannot be negative\n\n",
        ),
        (
            {"Defaults": {"PassiveHealthCheck": {"Interval": "-5s"}}},
            (
                "error in upstream defaults: 1 error occurred:\n"
                "\t* passive health check interval cannot be negative\n\n"
            ),
        ),
    ],
)
def test_a_value_that_cannot_be_is_500_and_not_written(settings: object, mistake: str) -> None:
    entry, store = read(settings), Store()
    assert mistakes(entry) == [mistake]
    with pytest.raises(ApiError) as caught:
        write_entry(store, entry)
    assert (caught.value.status, caught.value.text) == (500, f"1 error occurred:\n\t* {mistake}\n\n")
    assert store.index == 1


def test_settings_are_shown_as_consul_shows_them() -> None:
    given = {
        "Defaults": {"PassiveHealthCheck": {"Interval": "5s", "MaxFailures": 3}, "ConnectTimeoutMs": -7},
        "Overrides": {"Name": "db", "Limits": {"MaxConnections": "3"}, "Protocol": "HTTP"},
    }
    assert read(given)["UpstreamConfig"] == {
        "Overrides": [{"Name": "db", "Limits": {"MaxConnections": 3}, "Protocol": "http", "MeshGateway": {}}],
        "Defaults": {"PassiveHealthCheck": {"Interval": 5 * 10**9, "MaxFailures": 3}, "MeshGateway": {}},
    }


@pytest.mark.parametrize(("settings", "shown"), [({}, {}), ({"Overrides": [], "Defaults": None}, {})])
def test_settings_without_content_are_shown_empty(settings: object, shown: object) -> None:
    assert read(settings)["UpstreamConfig"] == shown


def test_an_entry_without_settings_has_none() -> None:
    assert normalised({}) == {}
    assert mistakes({"Name": "web"}) == []
