"""Values of the wrong kind: every place where a client's own keys are kept, and what is told of it."""

from __future__ import annotations

import pytest

from tests.contract.client import Api
from tests.contract.refusals import REGISTER, Case, expect, told, told_once

FIELD = "Request decode failed: json: cannot unmarshal {} into Go struct field .{} of type {}"
OPAQUE = "map[string]interface {}"
ADDRESS = "structs.ServiceAddress"


def with_sidecar(**sidecar: object) -> dict[str, object]:
    """A service with a sidecar that has these keys."""
    return {"Name": "x", "Connect": {"SidecarService": sidecar}}


REGISTRATIONS: list[Case] = [
    ("PUT", REGISTER, body, 400, FIELD.format(*words))
    for body, words in (
        (with_sidecar(Proxy={"Config": "x"}), ("string", "Config", OPAQUE)),
        (with_sidecar(Proxy={"Config": [1]}), ("array", "Config", OPAQUE)),
        (with_sidecar(Proxy={"Upstreams": [{"Config": "x"}]}), ("string", "Config", OPAQUE)),
        (with_sidecar(Proxy={"Upstreams": [{"Config": 7}]}), ("number", "Config", OPAQUE)),
        (with_sidecar(Connect={"SidecarService": {"Port": "x"}}), ("string", "Port", "int")),
        ({"Name": "x", "Proxy": {"Config": "x"}}, ("string", "Config", OPAQUE)),
        ({"Name": "x", "Meta": "x"}, ("string", "Meta", "map[string]string")),
        ({"Name": "x", "TaggedAddresses": "x"}, ("string", "TaggedAddresses", f"map[string]{ADDRESS}")),
        ({"Name": "x", "TaggedAddresses": {"lan": "x"}}, ("string", "TaggedAddresses", ADDRESS)),
        ({"Name": "x", "Check": {"Header": {"a": "x"}}}, ("string", "Header", "[]string")),
        ({"Name": "x", "Check": {"Header": "x"}}, ("string", "Header", "map[string][]string")),
    )
]
ELSEWHERE: list[Case] = [
    (
        "PUT",
        "/v1/catalog/register",
        {"Node": "n", "Address": "192.0.2.1", "Check": {"Name": "c", "Definition": {"HTTP": 3}}},
        400,
        FIELD.format("number", "HTTP", "string"),
    ),
    (
        "POST",
        "/v1/query",
        {"Name": "q", "Service": {"Service": "w", "NodeMeta": "x"}},
        400,
        FIELD.format("string", "NodeMeta", "map[string]string"),
    ),
    (
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "consul", "Config": "x"},
        400,
        "Bad request: " + FIELD.format("string", "Config", OPAQUE),
    ),
]

UNDECODABLE = "Bad request: Request decoding failed: 1 error(s) decoding:\n\n* "
CENTRAL: list[Case] = [
    ("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "x", "UpstreamConfig": settings}, status, text)
    for settings, status, text in (
        ("x", 400, f"{UNDECODABLE}'UpstreamConfig' expected a map, got 'string'"),
        ({"Defaults": "x"}, 400, f"{UNDECODABLE}'UpstreamConfig.Defaults' expected a map, got 'string'"),
        ({"Overrides": "x"}, 400, f"{UNDECODABLE}'UpstreamConfig.Overrides[0]' expected a map, got 'string'"),
        (
            {"Overrides": [{"Foo": 1}]},
            400,
            "Bad request: Request decoding failed: "
            + told_once('invalid config key "UpstreamConfig.Overrides[0].Foo"'),
        ),
        (
            {"Overrides": [{"Protocol": "http"}]},
            500,
            told_once("error in upstream override for : Name is required"),
        ),
        ({"Defaults": {"Name": "y"}}, 500, told_once("error in upstream defaults: Name must be empty")),
        (
            {"Defaults": {"Limits": {"MaxConnections": "x"}}},
            400,
            (
                f"{UNDECODABLE}cannot parse 'UpstreamConfig.Defaults.Limits.MaxConnections' as int: "
                'strconv.ParseInt: parsing "x": invalid syntax'
            ),
        ),
        (
            {"Defaults": {"PassiveHealthCheck": {"Interval": "x"}}},
            400,
            (
                f"{UNDECODABLE}error decoding 'UpstreamConfig.Defaults.PassiveHealthCheck.Interval': "
                'time: invalid duration "x"'
            ),
        ),
        (
            {"Defaults": {"Limits": {"MaxConnections": -3}}},
            500,
            told_once("error in upstream defaults: " + told_once("max connections cannot be negative")),
        ),
    )
]
PARTS: list[Case] = [
    ("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "x", **entry}, 400, UNDECODABLE + mistake)
    for entry, mistake in (
        ({"Expose": "x"}, "'Expose' expected a map, got 'string'"),
        ({"Expose": {"Paths": ["x"]}}, "'Expose.Paths[0]' expected a map, got 'string'"),
        ({"MeshGateway": []}, "'MeshGateway' expected a map, got 'slice'"),
        (
            {"TransparentProxy": {"OutboundListenerPort": "x"}},
            (
                "cannot parse 'TransparentProxy.OutboundListenerPort' as int: "
                'strconv.ParseInt: parsing "x": invalid syntax'
            ),
        ),
        (
            {"Protocol": {}},
            (
                "'Protocol' expected type 'string', got unconvertible type 'map[string]interface {}', "
                "value: 'map[]'"
            ),
        ),
    )
]

AUTHORITY = "error configuring provider: error decoding config: 1 error(s) decoding:\n\n* "
AUTHORITIES: list[Case] = [
    (
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "consul", "Config": config},
        500,
        AUTHORITY + mistake,
    )
    for config, mistake in (
        (
            {"LeafCertTTL": {}},
            (
                "'LeafCertTTL' expected type 'time.Duration', got unconvertible type "
                "'map[string]interface {}', value: 'map[]'"
            ),
        ),
        ({"LeafCertTTL": "zz"}, "error decoding 'LeafCertTTL': time: invalid duration \"zz\""),
        (
            {"PrivateKeyBits": "x"},
            "cannot parse 'PrivateKeyBits' as int: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    )
]


@pytest.mark.parametrize("case", [*REGISTRATIONS, *ELSEWHERE, *CENTRAL, *PARTS, *AUTHORITIES], ids=told)
def test_a_value_of_the_wrong_kind_is_refused_with_this_text(dc1: Api, case: Case) -> None:
    expect(dc1, case)
