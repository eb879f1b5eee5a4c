"""Wrong input: the status and the text of every refusal that a sidecar or its operator can run into."""

from __future__ import annotations

import json

import pytest

from tests.contract.client import Api

REGISTER = "/v1/agent/service/register"
EXACT = "/v1/connect/intentions/exact?source=a&destination=b"
AUTHORIZE = "/v1/agent/connect/authorize"
NO_QUERY = "11111111-2222-3333-4444-555555555555"
URI = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"

NO_DESTINATION = (
    "1 error occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n"
)

Case = tuple[str, str, object, int, str]

READS: list[Case] = [
    ("GET", "/v1/agent/connect/ca/roots?wait=zz", None, 400, "Invalid wait time"),
    ("GET", "/v1/health/connect/x?wait=10", None, 400, "Invalid wait time"),
    ("GET", "/v1/health/connect/x?index=zip", None, 400, "Invalid index"),
    ("GET", "/v1/health/connect/x?passing=zip", None, 400, "Invalid value for ?passing"),
    (
        "GET",
        "/v1/health/connect/x?stale&consistent",
        None,
        400,
        "Cannot specify ?stale with ?consistent, conflicting semantics.",
    ),
    (
        "GET",
        "/v1/health/connect/x?ns=default",
        None,
        400,
        'Bad request: Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
    ),
    ("GET", "/v1/health/connect/x?dc=dc9", None, 500, "No path to datacenter"),
    ("GET", "/v1/agent/connect/ca/leaf/x?dc=dc9", None, 500, "No path to datacenter"),
    ("GET", "/v1/catalog/services?dc=dc9", None, 500, "No path to datacenter"),
    ("GET", "/v1/query/nope/execute?connect=true&dc=dc9", None, 500, "No path to datacenter"),
    ("GET", "/v1/health/connect/", None, 400, "Missing service name"),
    ("GET", "/v1/catalog/service/", None, 400, "Missing service name"),
    ("GET", "/v1/agent/connect/ca/leaf/", None, 500, "URI must be either service or agent"),
    ("GET", "/v1/agent/service/nope", None, 404, "unknown service ID: nope"),
    ("GET", "/v1/agent/service/nope?hash=a&wait=5s", None, 404, "unknown service ID: nope"),
    ("GET", "/v1/query/nope/execute?connect=true", None, 404, "Query not found"),
    ("GET", f"/v1/query/{NO_QUERY}", None, 404, "Query not found"),
    (
        "GET",
        "/v1/query/nope",
        None,
        500,
        "failed prepared query lookup: index error: UUID must be 36 characters",
    ),
    (
        "GET",
        "/v1/query/nope/execute?limit=abc",
        None,
        500,
        'Bad limit: strconv.Atoi: parsing "abc": invalid syntax',
    ),
    (
        "GET",
        "/v1/config/service-defaults/nope",
        None,
        404,
        'Config entry not found for "service-defaults" / "nope"',
    ),
    ("GET", "/v1/config/nope/x", None, 500, "invalid config entry kind: nope"),
    ("GET", EXACT, None, 404, "Intention not found"),
    (
        "GET",
        "/v1/connect/intentions/match?by=destination",
        None,
        500,
        "required query parameter 'name' not set",
    ),
    ("GET", "/v1/connect/intentions/match?name=x", None, 500, "required query parameter 'by' not set"),
    (
        "GET",
        "/v1/connect/intentions/match?by=zip&name=x",
        None,
        500,
        "'by' parameter must be one of 'source' or 'destination'",
    ),
    (
        "GET",
        "/v1/connect/intentions/check?destination=x",
        None,
        500,
        "required query parameter 'source' not set",
    ),
    (
        "GET",
        "/v1/connect/intentions/check?source=x",
        None,
        500,
        "required query parameter 'destination' not set",
    ),
    (
        "GET",
        "/v1/connect/intentions/exact?source=x",
        None,
        500,
        "required query parameter 'destination' not set",
    ),
]

WRONG_METHODS: list[Case] = [
    ("POST", "/v1/health/connect/x", None, 405, "method POST not allowed"),
    ("GET", REGISTER, None, 405, "method GET not allowed"),
    ("GET", AUTHORIZE, None, 405, "method GET not allowed"),
    ("PUT", "/v1/agent/connect/ca/leaf/x", None, 405, "method PUT not allowed"),
    ("POST", "/v1/query/nope/execute", None, 405, "method POST not allowed"),
    ("POST", EXACT, None, 405, "method POST not allowed"),
    ("PUT", "/v1/catalog/datacenters", None, 405, "method PUT not allowed"),
]

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
        NO_DESTINATION,
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

CASES = [*READS, *WRONG_METHODS, *REGISTRATIONS, *CHECKS, *INTENTIONS, *DOCUMENTS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_wrong_input_is_refused_with_this_text(dc1: Api, case: Case) -> None:
    method, path, body, status, text = case
    answer = dc1.call(method, path, body)
    assert (answer.status, answer.text) == (status, text)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-consul-default-acl-policy"] == "allow"
    assert answer.headers["x-consul-translate-addresses"] == "true"


def test_a_wrong_method_names_the_right_ones(dc1: Api) -> None:
    answer = dc1.post("/v1/health/connect/x")
    assert set(answer.headers["allow"].split(",")) == {"OPTIONS", "GET"}


def test_a_bad_filter_is_the_servers_error(dc1: Api) -> None:
    answer = dc1.get("/v1/health/connect/x?filter=zip")
    assert answer.status == 500
    assert answer.text.startswith("Failed to create boolean expression evaluator: ")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/agent/health/service/id/nope",
            {"AggregatedStatus": "critical", "Service": None, "Checks": None},
        ),
        ("/v1/agent/health/service/name/nope", []),
    ],
)
def test_the_agents_own_health_answers_404_in_json(dc1: Api, path: str, body: object) -> None:

    answer = dc1.get(path)
    assert answer.status == 404
    assert json.loads(answer.text) == body


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/agent/service/deregister/nope", ""),
        ("PUT", "/v1/agent/check/deregister/nope", ""),
        ("DELETE", "/v1/connect/intentions/exact?source=nope&destination=nope", "true"),
        ("DELETE", "/v1/config/service-defaults/nope", "{}"),
        ("GET", "/v1/catalog/node/nope", "null"),
        ("GET", "/v1/health/service/nope", "[]"),
        ("GET", "/v1/health/connect/nope", "[]"),
        ("GET", "/v1/catalog/connect/nope", "[]"),
    ],
)
def test_what_is_not_there_is_sometimes_no_error(dc1: Api, method: str, path: str, body: str) -> None:
    answer = dc1.call(method, path)
    assert (answer.status, answer.text) == (200, body)
