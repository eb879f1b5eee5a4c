"""The page that says why: the rule, its precedence, the default and its origin, the list as evaluated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.http1.request import HttpRequest
from agent.policy.authorize import Policy, authorize
from agent.policy.deny_list import NO_ENTRIES, parse_deny_list
from agent.policy.explain import Evidence, Explanation, Question, explain
from agent.policy.http_mode import HttpMode
from agent.policy.narrowing import parse_setting
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import policy_of

RULES: list[dict[str, Any]] = [
    {"SourceName": "*", "DestinationName": "*", "Action": "deny"},
    {"SourceName": "web", "DestinationName": "db", "Action": "allow", "Meta": {"source-datacenters": "dc1"}},
    {
        "SourceName": "api",
        "DestinationName": "db",
        "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/v1", "Methods": ["GET"]}}],
    },
]
INTENTIONS = replace(policy_of(RULES, "db", default_allow=True), datacenter="dc1")
NARROWED = (
    "web => db (allow, precedence 9, only *@dc1), "
    "dc2 is not among the source datacenters dc1 (Meta source-datacenters)"
)


def source(service: str, datacenter: str = "dc1") -> ServiceId:
    return ServiceId(trust_domain=TrustDomain("x.consul"), datacenter=datacenter, service=service)


def explained(
    service: str,
    datacenter: str = "dc1",
    *,
    policy: Policy = INTENTIONS,
    denied: str = "",
    request: HttpRequest | None = None,
    http: HttpMode | None = None,
) -> Explanation:
    evidence = Evidence(
        policy=policy,
        default_origin="a header",
        replica="index 7",
        deny_list=parse_deny_list(denied) if denied else NO_ENTRIES,
        deny_origin="/etc/denied" if denied else "",
        http=http,
    )
    return explain(Question(source=source(service, datacenter), serial="0a", request=request), evidence)


def test_the_whole_page() -> None:
    assert explained("web", "dc2").lines == (
        "denied: web@dc2 => db@dc1",
        "source      spiffe://x.consul/ns/default/dc/dc2/svc/web",
        "reason      narrowed_by_datacenter",
        f"rule        {NARROWED}",
        "precedence  9",
        "default     allow, a header",
        "replica     index 7",
        "rules       in deciding order",
        "     api => db (by request, precedence 9)",
        "       permission 1: allow GET /v1*",
        "  -> web => db (allow, precedence 9, only *@dc1)",
        "     * => * (deny, precedence 5)",
    )


def test_the_rule_is_said_in_the_words_of_the_log() -> None:
    for service, datacenter in (("web", "dc1"), ("web", "dc2"), ("other", "dc1")):
        verdict = authorize(INTENTIONS, source(service, datacenter), None)
        explanation = explained(service, datacenter)
        assert explanation.allowed is verdict.allowed
        assert f"rule        {verdict.rule}" in explanation.lines


def test_nothing_but_the_default() -> None:
    explanation = explained("web", policy=policy_of([], "db", default_allow=False))
    assert (explanation.allowed, explanation.reason) == (False, "default_deny")
    assert "precedence  none matches: the default" in explanation.lines
    assert "rules       none" in explanation.lines


@pytest.mark.parametrize(
    ("method", "http", "allowed", "said"),
    [
        ("", None, False, "each is judged by itself where the protocol is http: give -method and -path"),
        ("GET", None, True, "judged so where the destination's protocol is http; else"),
        ("GET", HttpMode.IF_NEEDED, True, "each is judged by itself"),
        ("GET", HttpMode.NEVER, False, "permissions deny the whole connection"),
        ("GET", HttpMode.UNSUPPORTED, False, "permissions deny the whole connection"),
    ],
)
def test_requests(method: str, http: HttpMode | None, allowed: bool, said: str) -> None:
    request = HttpRequest(method=method, paths=("/v1/x",), headers={}) if method else None
    explanation = explained("api", request=request, http=http)
    assert explanation.allowed is allowed
    assert said in explanation.text


@pytest.mark.parametrize(
    "entry", ["spiffe://x.consul/ns/default/dc/*/svc/web", "serial x.consul dc1 0a", "serial x.consul dc1 0b"]
)
def test_the_deny_list_has_the_last_word(entry: str) -> None:
    explanation = explained("web", denied=entry, policy=replace(INTENTIONS, audit=True))
    denied = not entry.endswith("0b")
    assert explanation.allowed is not denied
    assert (explanation.reason == "deny_listed") is denied
    assert (f"rule        deny list line 1: {entry}" in explanation.lines) is denied
    assert "deny list   /etc/denied, 1 entries" in explanation.lines


def test_audit_and_settings_are_shown() -> None:
    told = replace(INTENTIONS, audit=True, narrowings=(parse_setting("web@dc9"),))
    explanation = explained("web", policy=told)
    assert explanation.allowed
    assert explanation.lines[0] == "allowed: web@dc1 => db@dc1 (audit: would be denied, is let through)"
    assert "narrowed    by our settings to web@dc9" in explanation.lines


def test_permissions_that_cannot_be_read_are_shown_as_such() -> None:
    rule = {"SourceName": "web", "DestinationName": "db", "Permissions": [{"Action": "allow", "New": 1}]}
    explanation = explained("web", policy=policy_of([rule], "db", default_allow=True))
    assert not explanation.allowed
    assert explanation.lines[-2].startswith("  -> web => db (by request")
