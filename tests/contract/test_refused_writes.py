"""Wrong input: the status and the text of every refusal a sidecar or its operator can run into."""

from __future__ import annotations

import pytest

from tests.contract.client import Api
from tests.contract.refusals import AUTHORIZE, EXACT, NO_QUERY, REGISTER, Case, expect, told, told_once

URI = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"


REGISTRATIONS: list[Case] = [
    ("PUT", REGISTER, '{"Name":', 400, "Request decode failed: unexpected EOF"),
    ("PUT", REGISTER, "", 400, "Request decode failed: EOF"),
    ("PUT", REGISTER, {"Name": "u", "Bogus": 1}, 400, 'Request decode failed: json: unknown field "Bogus"'),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Port": "abc"},
        400,
        "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int",
    ),
    ("PUT", REGISTER, {"Port": 1}, 400, "Missing service name"),
    ("PUT", REGISTER, {"Name": "x", "Address": "0.0.0.0"}, 400, "Invalid service address"),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Kind": "connect-proxy", "Port": 1},
        400,
        told_once("Proxy.DestinationServiceName must be non-empty for Connect proxy services"),
    ),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Weights": {"Passing": -1}},
        400,
        "Invalid Weights: Passing must be greater than 0",
    ),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Check": {"TTL": "10s", "Interval": "5s"}},
        400,
        "Invalid check: Interval and TTL cannot both be specified",
    ),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Check": {"TCP": "127.0.0.1:1"}},
        400,
        "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, or TCP checks",
    ),
    (
        "PUT",
        REGISTER,
        {"Name": "x", "Check": {"TTL": "xx"}},
        400,
        'Request decode failed: time: invalid duration "xx"',
    ),
    ("PUT", "/v1/agent/service/maintenance/nope", None, 400, "Missing value for enable"),
    (
        "PUT",
        "/v1/agent/service/maintenance/nope?enable=abc",
        None,
        400,
        'Invalid value for enable: "abc"',
    ),
    (
        "PUT",
        "/v1/agent/service/maintenance/nope?enable=true",
        None,
        404,
        'No service registered with ID "nope"',
    ),
]

PROXY = {"Name": "x", "Kind": "connect-proxy", "Port": 1}


def proxied(*upstreams: object) -> dict[str, object]:
    """A stand-alone proxy with these upstreams."""
    return {**PROXY, "Proxy": {"DestinationServiceName": "d", "Upstreams": list(upstreams)}}


D7 = {"DestinationName": "d", "LocalBindPort": 7}
VALUES: list[Case] = [
    ("PUT", REGISTER, body, status, text)
    for body, status, text in (
        ({"Name": "x", "Weights": {}}, 400, "Invalid Weights: Passing must be greater than 0"),
        (
            {"Name": "x", "Weights": {"Passing": 1, "Warning": -1}},
            400,
            "Invalid Weights: Warning must be greater or equal than 0",
        ),
        (
            {"Name": "x", "Weights": {"Passing": 70000}},
            400,
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            {"Name": "x", "Meta": {"a b": "c"}},
            400,
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters",
        ),
        (
            {"Name": "x", "Check": {"TTL": "9s", "Status": "zip"}},
            400,
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        (
            {"Name": "x", "Check": {"TTL": "10"}},
            400,
            'Request decode failed: time: missing unit in duration "10"',
        ),
        (
            {"Name": "x", "Connect": {"SidecarService": {"ID": "y"}}},
            400,
            told_once("A SidecarService cannot specify an ID as this is managed by the agent"),
        ),
        (
            {"Name": "x", "Connect": {"SidecarService": {"Check": {"Name": "y"}}}},
            500,
            "Bad request: Invalid check in sidecar_service: TTL must be > 0 for TTL checks",
        ),
        (
            PROXY | {"Port": 0, "Proxy": {"DestinationServiceName": "d"}},
            400,
            told_once("Port or SocketPath must be set for a Connect proxy"),
        ),
        (proxied({"LocalBindPort": 1}), 400, told_once("upstream destination name cannot be empty")),
        (
            proxied({"DestinationName": "d"}),
            400,
            told_once("upstream local bind port or local socket path must be defined and nonzero"),
        ),
        (
            proxied(D7 | {"DestinationType": "zip"}),
            400,
            told_once('unknown upstream destination type: "zip"'),
        ),
        (
            proxied(D7, D7 | {"DestinationName": "e"}),
            400,
            told_once(
                "upstreams cannot contain duplicates by local bind address and port or unix path; "
                '"127.0.0.1:7" is specified twice'
            ),
        ),
        (
            "{'Name':'x'}",
            400,
            "Request decode failed: invalid character '\\'' looking for beginning of object key string",
        ),
        ("null", 400, "Missing service name"),
    )
]

CHECKS: list[Case] = [
    ("PUT", "/v1/agent/check/pass/nope", None, 500, 'CheckID "nope" does not have associated TTL'),
    (
        "PUT",
        "/v1/agent/check/update/nope",
        {"Status": "passing"},
        500,
        'CheckID "nope" does not have associated TTL',
    ),
    ("PUT", "/v1/agent/check/update/nope", {"Status": "zip"}, 400, "Invalid check status: 'zip'"),
    ("PUT", "/v1/agent/check/register", {"TTL": "10s"}, 400, "Missing check name"),
    (
        "PUT",
        "/v1/agent/check/register",
        {"Name": "x"},
        400,
        "Invalid check: TTL must be > 0 for TTL checks",
    ),
    (
        "PUT",
        "/v1/agent/check/register",
        {"Name": "x", "TTL": "10s", "ServiceID": "nope"},
        500,
        'ServiceID "nope" does not exist',
    ),
    (
        "PUT",
        "/v1/agent/check/register",
        {"CheckID": "x", "TTL": "10s"},
        400,
        'Request decode failed: json: unknown field "CheckID"',
    ),
]

INTENTIONS: list[Case] = [
    ("PUT", EXACT, {"Action": "zip"}, 500, "Sources[0].Action must be set to 'allow' or 'deny'"),
    ("PUT", EXACT, {}, 500, "Sources[0].Action must be set to 'allow' or 'deny'"),
    ("PUT", EXACT, '{"Action":', 400, "Bad request: Request decode failed: unexpected EOF"),
    ("PUT", EXACT, {"Bogus": 1}, 400, 'Bad request: Request decode failed: json: unknown field "Bogus"'),
    (
        "PUT",
        "/v1/connect/intentions/exact?source=a*&destination=b",
        {"Action": "allow"},
        500,
        "Sources[0].Name: wildcard character '*' cannot be used with partial values",
    ),
    (
        "PUT",
        "/v1/connect/intentions/exact?source=a&destination=b*",
        {"Action": "allow"},
        500,
        "Name: wildcard character '*' cannot be used with partial values",
    ),
    (
        "PUT",
        "/v1/connect/intentions/exact?source=a",
        {"Action": "allow"},
        500,
        "required query parameter 'destination' not set",
    ),
    (
        "PUT",
        "/v1/connect/intentions/exact?destination=a",
        {"Action": "allow"},
        500,
        "required query parameter 'source' not set",
    ),
    (
        "POST",
        "/v1/connect/intentions",
        "{",
        500,
        "Failed to decode request body: unexpected EOF",
    ),
    ("POST", AUTHORIZE, {}, 400, "Bad request: Target service must be specified"),
    ("POST", AUTHORIZE, "{", 400, "Bad request: Request decode failed: unexpected EOF"),
    (
        "POST",
        AUTHORIZE,
        {"Target": "db", "ClientCertURI": "x/y"},
        400,
        "Bad request: ClientCertURI not a valid Connect identifier",
    ),
    (
        "POST",
        AUTHORIZE,
        {"Target": "db", "ClientCertURI": "spiffe://x.consul/agent/client/dc/dc1/id/n1"},
        400,
        "Bad request: ClientCertURI not a valid Service identifier",
    ),
    (
        "POST",
        AUTHORIZE,
        {"Target": "db", "ClientCertURI": URI, "Bogus": 1},
        400,
        'Bad request: Request decode failed: json: unknown field "Bogus"',
    ),
]

DOCUMENTS: list[Case] = [
    ("PUT", "/v1/config", "{", 400, "Bad request: Request decoding failed: unexpected EOF"),
    (
        "PUT",
        "/v1/config",
        {"Kind": "nope", "Name": "x"},
        400,
        "Bad request: Request decoding failed: invalid config entry kind: nope",
    ),
    (
        "PUT",
        "/v1/config",
        {"Name": "x"},
        400,
        "Bad request: Request decoding failed: Payload does not contain a kind/Kind key at the top level",
    ),
    ("PUT", "/v1/config", {"Kind": "service-defaults"}, 500, "Name is required"),
    (
        "PUT",
        "/v1/config",
        {"Kind": "service-defaults", "Name": "x", "Bogus": 1},
        400,
        'Bad request: Request decoding failed: 1 error occurred:\n\t* invalid config key "Bogus"\n\n',
    ),
    ("POST", "/v1/query", "{", 400, "Request decode failed: unexpected EOF"),
    (
        "POST",
        "/v1/query",
        {"Name": "q", "Service": {}},
        500,
        "Invalid prepared query: Must provide a Service name to query",
    ),
    (
        "POST",
        "/v1/query",
        {"Service": {"Service": "x"}},
        500,
        "Invalid prepared query: Must be bound to a session",
    ),
    (
        "PUT",
        "/v1/config",
        {"Kind": 5},
        400,
        "Bad request: Request decoding failed: Kind value in payload is not a string",
    ),
    ("PUT", "/v1/config", "[]", 400, "Bad request: Request decoding failed: '' expected a map, got 'slice'"),
    ("DELETE", "/v1/config/nope/x", None, 400, "invalid config entry kind: nope"),
    (
        "DELETE",
        f"/v1/query/{NO_QUERY}",
        None,
        500,
        f"Cannot modify non-existent prepared query: '{NO_QUERY}'",
    ),
    (
        "PUT",
        "/v1/connect/ca/configuration",
        "{",
        400,
        "Bad request: Request decode failed: unexpected EOF",
    ),
    (
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "nope"},
        500,
        'could not initialize provider: unknown CA provider "nope"',
    ),
    (
        "PUT",
        "/v1/connect/ca/configuration",
        {"Provider": "consul", "Config": {"LeafCertTTL": "5m"}},
        500,
        "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s",
    ),
]


@pytest.mark.parametrize(
    "case",
    [*REGISTRATIONS, *VALUES, *CHECKS, *INTENTIONS, *DOCUMENTS],
    ids=told,
)
def test_wrong_input_is_refused_with_this_text(dc1: Api, case: Case) -> None:
    expect(dc1, case)
