"""Lists of permissions: read, ordered, and never applied with a hole in them."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product

import pytest

from agent.http1.request import HttpRequest, Values
from agent.policy.authorize import Policy, VerdictReason, authorize, authorize_caller, authorize_request
from agent.policy.intentions import parse_match
from agent.policy.permissions import Permissions, Unreadable, parse_permissions
from certs.spiffe import ServiceId, TrustDomain
from tests import recorded
from tests.support.policies import policy_of

WEB = ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service="web")


def request(path: str = "/", method: str = "GET", *others: str, **headers: Values) -> HttpRequest:
    named = {name.replace("_", "-"): values for name, values in headers.items()}
    return HttpRequest(method=method, paths=(path, *others), headers=named)


def permission(action: str = "allow", **http: object) -> dict[str, object]:
    return {"Action": action, "HTTP": http}


def deciding(permissions: Permissions, asked: HttpRequest) -> int | None:
    first = permissions.first(asked)
    return None if first is None else first.number


def test_the_first_that_matches_decides() -> None:
    permissions = parse_permissions(
        [
            permission("deny", PathExact="/admin"),
            permission("allow", PathPrefix="/", Methods=["get", "HEAD"]),
            permission("deny", PathPrefix="/"),
        ]
    )
    assert deciding(permissions, request("/admin")) == 1
    assert deciding(permissions, request("/x")) == 2
    assert deciding(permissions, request("/x", "POST")) == 3
    assert deciding(permissions, request("*", "OPTIONS")) is None


def test_a_denial_asks_everything_given_of_the_headers_too() -> None:
    header = [{"Name": "X-A", "Exact": "1"}, {"Name": "x-b", "Present": True}]
    permissions = parse_permissions([permission("deny", PathPrefix="/api", Header=header)])
    for path, a, b in product(("/api", "/x"), (("1",), ("2",), ("2", "1"), ()), ((), ("b",))):
        expected = path == "/api" and "1" in a and b == ("b",)
        assert (deciding(permissions, request(path, x_a=a, x_b=b)) == 1) is expected
    assert deciding(permissions, HttpRequest(method="GET", paths=("/api",), headers={})) is None


def test_a_header_may_be_compared_without_case() -> None:
    alike = parse_permissions([permission(Header=[{"Name": "x-a", "Exact": "Ab", "IgnoreCase": True}])])
    assert deciding(alike, request(x_a=("aB",))) == 1
    exact = parse_permissions([permission(Header=[{"Name": "x-a", "Exact": "Ab"}])])
    assert deciding(exact, request(x_a=("aB",))) is None


@pytest.mark.parametrize("condition", [{"Regex": "a"}, {"Present": True}])
def test_what_has_no_case_to_ignore_is_unreadable(condition: dict[str, object]) -> None:
    found = parse_permissions([permission(Header=[{"Name": "x-a", "IgnoreCase": True, **condition}])])
    assert found.unreadable is Unreadable.PERMISSION


def test_everything_given_must_hold() -> None:
    header = [{"Name": "X-A", "Exact": "1"}, {"Name": "x-b", "Present": True, "Invert": True}]
    permissions = parse_permissions([permission(PathPrefix="/api", Methods=["GET"], Header=header)])
    for path, method, a, b in product(("/api", "/x"), ("GET", "PUT"), (("1",), ("2",), ()), ((), ("b",))):
        asked = request(path, method, x_a=a, x_b=b)
        expected = (path, method, a, b) == ("/api", "GET", ("1",), ())
        assert (deciding(permissions, asked) == 1) is expected


@pytest.mark.parametrize(
    ("asked", "allowed", "denied"),
    [
        (request("/a"), True, True),
        (request("/A"), False, True),
        (request("/a", "get"), False, True),  # an app may take get for GET
        (request("/a;x", "GET", "/a"), False, True),
        (request("/b;x", "GET", "/b"), False, False),
    ],
)
def test_a_denial_needs_one_reading_and_an_allowance_all(
    asked: HttpRequest, allowed: bool, denied: bool
) -> None:
    for action, matches in (("allow", allowed), ("deny", denied)):
        permissions = parse_permissions([permission(action, PathExact="/a", Methods=["GET"])])
        assert (deciding(permissions, asked) == 1) is matches


def test_the_recorded_list_is_read() -> None:
    answer = recorded.body("intention-match-l7")["httpsvc"]
    first = policy_of(answer, "httpsvc", default_allow=False).intentions.rules[0]
    assert first.permissions is not None
    second = "permission 2: allow GET HEAD /api*"
    assert [str(rule) for rule in first.permissions.rules] == [
        "permission 1: deny any method /admin",
        f"{second} if x-a exact 1 if x-b not present if x-c regex ^v[0-9]+$ if x-d prefix p if x-e suffix s",
        "permission 3: allow any method ~/re/.*",
    ]
    assert first.permissions.header_names == {"x-a", "x-b", "x-c", "x-d", "x-e"}
    assert str(first) == "web => httpsvc (by request, precedence 9)"


@pytest.mark.parametrize(
    ("permissions", "why"),
    [
        ([permission(PathRegex="(")], Unreadable.PATTERN),
        ([permission(Header=[{"Name": "x", "Regex": r"\1"}])], Unreadable.PATTERN),
        ([permission(PathExact="/a"), permission(PathRegex="(?=a)")], Unreadable.PATTERN),
        ([permission("deny", PathRegex="/100%")], Unreadable.PATTERN),
        ([permission()], Unreadable.PERMISSION),
        ([{"Action": "allow"}], Unreadable.PERMISSION),
        ([{"Action": "allow", "JWT": {"Providers": []}}], Unreadable.PERMISSION),
        ([{**permission(PathExact="/a"), "JWT": {}}], Unreadable.PERMISSION),
        ([permission("log", PathExact="/a")], Unreadable.PERMISSION),
        ([permission(PathExact="/a", PathPrefix="/b")], Unreadable.PERMISSION),
        ([permission(PathExact="a")], Unreadable.PERMISSION),
        ([permission(PathPrefix="/a//b")], Unreadable.PERMISSION),
        ([permission(PathPrefix="/a%2Fb")], Unreadable.PERMISSION),
        ([permission(PathSuffix="/a")], Unreadable.PERMISSION),
        ([permission(Header=[{"Name": ":path", "Exact": "/a"}])], Unreadable.PERMISSION),
        ([permission(Header=[{"Name": "x"}])], Unreadable.PERMISSION),
        ([permission(Header=[{"Name": "x", "Exact": "a", "Prefix": "b"}])], Unreadable.PERMISSION),
        ([permission(Header=[{"Name": "x", "Range": "1"}])], Unreadable.PERMISSION),
        (["allow"], Unreadable.PERMISSION),
    ],
)
def test_what_cannot_be_read_is_named(permissions: list[object], why: Unreadable) -> None:
    read = parse_permissions(permissions)
    assert (read.unreadable, read.rules) == (why, ())
    assert read.detail


def test_an_allowing_pattern_is_read_to_the_letter() -> None:
    permissions = parse_permissions([permission(PathRegex="/[a-z%0-9]+")])
    assert deciding(permissions, request("/a%20b")) == 1
    assert deciding(permissions, request("/A")) is None


def test_without_the_engine_only_patterns_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert parse_permissions([permission(PathExact="/a")]).unreadable is None
    assert parse_permissions([permission(PathRegex="/a")]).unreadable is Unreadable.PATTERN


def rules(*permissions: dict[str, object], default_allow: bool, **more: object) -> Policy:
    mine = {"SourceName": "web", "DestinationName": "db", "Permissions": list(permissions), **more}
    wide = {"SourceName": "*", "DestinationName": "db", "Action": "allow"}
    return policy_of([mine, wide], "db", default_allow=default_allow)


@pytest.mark.parametrize("default_allow", [True, False])
def test_where_no_permission_matches_the_default_holds_not_the_next_intention(default_allow: bool) -> None:
    verdict = authorize_request(
        rules(permission(PathExact="/a"), default_allow=default_allow), WEB, request("/b"), None
    )
    assert verdict.allowed is default_allow
    assert verdict.reason is (VerdictReason.DEFAULT_ALLOW if default_allow else VerdictReason.DEFAULT_DENY)
    assert verdict.rule.startswith("web => db (by request, precedence 9), no permission matches, default")


@pytest.mark.parametrize(
    ("http", "reason"),
    [
        (permission(PathExact="/a"), VerdictReason.PERMISSION_ALLOW),
        (permission("deny", PathExact="/a"), VerdictReason.PERMISSION_DENY),
        (permission(PathRegex="("), VerdictReason.UNSUPPORTED_PATTERN),
        (permission(), VerdictReason.UNSUPPORTED_PERMISSION),
    ],
)
def test_a_verdict_names_what_decided(http: dict[str, object], reason: VerdictReason) -> None:
    verdict = authorize_request(rules(http, default_allow=True), WEB, request("/a"), None)
    assert (verdict.reason, verdict.allowed) == (reason, reason is VerdictReason.PERMISSION_ALLOW)


def test_a_token_requirement_of_the_whole_intention_denies() -> None:
    intention = {"SourceName": "web", "DestinationName": "db", "Action": "allow", "JWT": {"Providers": [{}]}}
    policy = policy_of([intention], "db", default_allow=True)
    verdict = authorize_request(policy, WEB, request("/a"), None)
    assert verdict.reason is VerdictReason.UNSUPPORTED_PERMISSION
    assert not authorize(policy, WEB, None).allowed


@pytest.mark.parametrize("name", ["x-http-method-override", "x-original-url", "x-rewrite-url"])
def test_a_header_that_changes_the_request_afterwards_denies(name: str) -> None:
    asked = HttpRequest(method="GET", paths=("/a",), headers={name: ("/admin",)})
    verdict = authorize_request(rules(permission(PathExact="/a"), default_allow=True), WEB, asked, None)
    assert (verdict.allowed, verdict.reason) == (False, VerdictReason.OVERRIDING_HEADER)
    assert name in verdict.rule
    plain = policy_of([], "db", default_allow=True)
    verdict = authorize_request(plain, WEB, asked, None)
    assert verdict.allowed, "where nothing is judged, nothing can be evaded"


def test_callers_may_ask_where_requests_are_judged() -> None:
    policy = rules(permission("deny", PathPrefix="/"), default_allow=False)
    assert authorize_caller(policy, WEB, None).allowed
    assert not authorize(policy, WEB, None).allowed
    denied = policy_of(
        [{"SourceName": "web", "DestinationName": "db", "Action": "deny"}], "db", default_allow=True
    )
    assert not authorize_caller(denied, WEB, None).allowed
    assert authorize_request(denied, WEB, request(), None).reason is VerdictReason.INTENTION_DENY
    assert policy.intentions.by_request
    assert not denied.intentions.by_request
    assert policy.intentions.header_names == frozenset()


def test_a_default_that_is_not_known_lets_nobody_in() -> None:
    unknown = replace(parse_match([], "db", default_allow=False), default_unknown="not asked yet")
    verdict = authorize(Policy(intentions=unknown), WEB, None)
    assert (verdict.allowed, verdict.reason) == (False, VerdictReason.DEFAULT_UNKNOWN)
    assert "not asked yet" in verdict.rule
