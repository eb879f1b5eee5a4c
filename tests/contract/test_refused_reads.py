"""Wrong questions: the status and the text of every refusal a sidecar or its operator can run into."""

from __future__ import annotations

import json

import pytest

from tests.contract.client import Api
from tests.contract.refusals import AUTHORIZE, EXACT, NO_QUERY, REGISTER, Case, expect, told
from tests.contract.versions import answers

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
        "/v1/connect/intentions/check?source=foo/a&destination=x",
        None,
        500,
        'Invalid source namespace "foo": Namespaces is a Consul Enterprise feature',
    ),
    (
        "GET",
        "/v1/connect/intentions/nope",
        None,
        400,
        "Bad request: failed config entry lookup: index error: UUID must be 36 characters",
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


@pytest.mark.parametrize("case", [*READS, *WRONG_METHODS], ids=told)
def test_a_wrong_question_is_refused_with_this_text(dc1: Api, case: Case) -> None:
    expect(dc1, case)


def test_a_wrong_method_names_the_right_ones(dc1: Api) -> None:
    answer = dc1.post("/v1/health/connect/x")
    assert set(answer.headers["allow"].split(",")) == {"OPTIONS", "GET"}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_where_nothing_is_there_is_a_bare_404(dc1: Api, method: str) -> None:
    answer = dc1.call(method, "/v1/nope")
    assert (answer.status, answer.text) in answers(dc1, 404, "", path="/v1/nope")
    assert not any(name.startswith("x-consul") for name in answer.headers)


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
    assert (answer.status, answer.text) in answers(dc1, 200, body, path=path)
