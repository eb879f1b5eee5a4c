"""Every mistake in a registration, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.services.registration import Invalid, expand
from datacenter.state.validation import check_mistake, multierror

PROXY = {"Kind": "connect-proxy", "Name": "p", "Port": 1}


def proxy(**changes: Any) -> dict[str, Any]:
    return {**PROXY, "Proxy": {"DestinationServiceName": "web", **changes}}


REFUSED: dict[str, dict[str, Any]] = {
    "Missing service name": {"Port": 1},
    "Invalid service address": {"Name": "web", "Address": "0.0.0.0"},
    "Proxy.DestinationServiceName must be non-empty for Connect proxy services": PROXY,
    "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services": proxy(
        DestinationServiceName="*"
    ),
    "Port or SocketPath must be set for a Connect proxy": {**proxy(), "Port": 0},
    "A Proxy cannot also be Connect Native, only typical services": {**proxy(), "Connect": {"Native": True}},
    'unknown upstream destination type: "x"': proxy(
        Upstreams=[{"DestinationType": "x", "DestinationName": "a", "LocalBindPort": 1}]
    ),
    "upstream destination name cannot be empty": proxy(Upstreams=[{"LocalBindPort": 1}]),
    "upstream destination name cannot be a wildcard": proxy(
        Upstreams=[{"DestinationName": "*", "LocalBindPort": 1}]
    ),
    "upstream local bind port or local socket path must be defined and nonzero": proxy(
        Upstreams=[{"DestinationName": "a"}]
    ),
    "only one of upstream local bind port or local socket path can be defined and nonzero": proxy(
        Upstreams=[{"DestinationName": "a", "LocalBindPort": 1, "LocalBindSocketPath": "/s"}]
    ),
    'bind address and port or unix path; "127.0.0.1:1" is specified twice': proxy(
        Upstreams=[
            {"DestinationName": "a", "LocalBindPort": 1},
            {"DestinationName": "b", "LocalBindAddress": "127.0.0.1", "LocalBindPort": 1},
        ]
    ),
    "A SidecarService cannot specify an ID as this is managed by the agent": {
        "Name": "web",
        "Connect": {"SidecarService": {"ID": "x"}},
    },
    "A SidecarService cannot have a nested SidecarService": {
        "Name": "web",
        "Connect": {"SidecarService": {"Connect": {"SidecarService": {}}}},
    },
    "Invalid check: TTL must be > 0 for TTL checks": {"Name": "web", "Check": {"Name": "x"}},
    "Status for checks must 'passing', 'warning', 'critical'": {
        "Name": "web",
        "Check": {"TTL": 1, "Status": "well"},
    },
    "Invalid Weights: Passing must be greater than 0": {"Name": "web", "Weights": {"Warning": 3}},
    "Invalid Weights: Warning must be greater or equal than 0": {
        "Name": "web",
        "Weights": {"Passing": 1, "Warning": -1},
    },
    "Invalid Weights: DNS Weight must be between 0 and 65535": {"Name": "web", "Weights": {"Passing": 65536}},
    "Invalid Service Meta: Couldn't load metadata pair ('', 'c'): Key cannot be blank": {
        "Name": "web",
        "Meta": {"": "c"},
    },
    "('a b', 'c'): Key contains invalid characters": {"Name": "web", "Meta": {"a b": "c"}},
    "Key is too long (limit: 128 characters)": {"Name": "web", "Meta": {"a" * 129: "c"}},
    "Key prefix 'consul-' is reserved for internal use": {"Name": "web", "Meta": {"consul-a": "c"}},
    "Value is too long (limit: 512 characters)": {"Name": "web", "Meta": {"a": "c" * 513}},
}


@pytest.mark.parametrize(("text", "definition"), REFUSED.items())
def test_refused(text: str, definition: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        expand(definition, {})
    assert text in str(caught.value)


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(Invalid) as caught:
        expand({**PROXY, "Port": 0}, {})
    assert str(caught.value).startswith("2 errors occurred:\n\t* ")
    assert multierror(["a"]) == "1 error occurred:\n\t* a\n\n"


CHECKS: dict[str, dict[str, Any]] = {
    "": {"TTL": 1},
    "TTL must be > 0 for TTL checks": {},
    "Interval and TTL cannot both be specified": {"TTL": 1, "Interval": 1},
    "Interval must be > 0 for Script, HTTP, H2PING, or TCP checks": {"TCP": "a:1"},
    "TTL must be not be set for Alias checks": {"AliasService": "a", "TTL": 1},
    "the embedded datacenter runs TTL, TCP, HTTP and alias checks only": {"ScriptArgs": ["x"], "Interval": 1},
}


@pytest.mark.parametrize(("text", "check"), CHECKS.items())
def test_checks(text: str, check: dict[str, Any]) -> None:
    assert check_mistake(check) == text


@pytest.mark.parametrize("kind", [{"HTTP": "http://a"}, {"TCP": "a:1"}])
def test_probes(kind: dict[str, Any]) -> None:
    assert check_mistake({**kind, "Interval": 1}) == ""
