"""Narrowings, from Meta and from settings: what is read, what each says to a caller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.policy.authorize import VerdictReason, authorize, authorize_caller
from agent.policy.narrowing import Narrowing, parse_meta, parse_setting
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import policy_of

WEB = [("dc1", True), ("dc2", False), ("dc3", True)]


def caller(datacenter: str, service: str = "web") -> ServiceId:
    return ServiceId(trust_domain=TrustDomain("x.consul"), datacenter=datacenter, service=service)


def meta_of(meta: dict[str, object], *sources: str, action: str = "allow") -> list[dict[str, object]]:
    """One service-intentions entry as the match answer shows it: each source has the entry's Meta."""
    return [
        {"SourceName": source, "DestinationName": "db", "Action": action, "Meta": meta} for source in sources
    ]


@pytest.mark.parametrize(
    "meta",
    [
        {"source-datacenters": "dc1 dc3"},
        {"source-datacenters": "dc3,dc1, dc1"},
        {"source-datacenter": "dc1\tdc3"},
        {"Source_Datacenters": "dc1 dc3"},
        {"source-datacenters:web": "dc1 dc3"},
        {"source-datacenters": "*", "source-datacenters:web": "dc1 dc3"},
        {"source-datacenters": "dc1 dc3 dc9", "source-datacenters:web": "dc1 dc3 dc8"},
        {"source-datacenters": "dc1 dc3", "owner": "team", "source-datacenters:api": "dc9"},
    ],
)
def test_one_intention_lets_in_some_datacenters(meta: dict[str, object]) -> None:
    policy = policy_of(meta_of(meta, "web"), "db", default_allow=True)
    for datacenter, allowed in WEB:
        verdict = authorize(policy, caller(datacenter), None)
        assert verdict.allowed is allowed
        if not allowed:
            assert verdict.reason is VerdictReason.NARROWED
            assert "web => db (allow, precedence 9, only " in verdict.rule
            assert "dc2 is not among the source datacenters dc1,dc3" in verdict.rule


@pytest.mark.parametrize(
    "meta",
    [
        {"source-datacenters": ""},
        {"source-datacenters": "dc1;dc2"},
        {"source-datacenters": 7},
        {"source-datacenter-list": "dc1"},
        {"source-datacenterss": "dc1"},
    ],
)
def test_what_cannot_be_read_lets_nobody_in(meta: dict[str, object]) -> None:
    verdict = authorize(policy_of(meta_of(meta, "web"), "db", default_allow=True), caller("dc1"), None)
    assert (verdict.allowed, verdict.reason) == (False, VerdictReason.NARROWED)


def test_a_source_of_its_own() -> None:
    policy = policy_of(meta_of({"source-datacenters:api": "dc1"}, "web", "api"), "db", default_allow=False)
    assert authorize(policy, caller("dc2"), None).allowed
    assert not authorize(policy, caller("dc2", "api"), None).allowed


def test_one_source_among_those_a_wildcard_lets_in() -> None:
    policy = policy_of(meta_of({"source-datacenters:api": "dc1"}, "*"), "db", default_allow=False)
    assert authorize(policy, caller("dc2"), None).allowed
    assert not authorize(policy, caller("dc2", "api"), None).allowed


@pytest.mark.parametrize(("ours", "allowed"), [("dc2", True), ("dc1", False), ("", False)])
def test_by_destination(ours: str, allowed: bool) -> None:
    rules = meta_of({"destination-datacenters": "dc2"}, "web")
    policy = replace(policy_of(rules, "db", default_allow=False), datacenter=ours)
    verdict = authorize(policy, caller("dc1"), None)
    assert verdict.allowed is allowed
    assert allowed or f"{ours or 'our datacenter, not known yet,'} is not among" in verdict.rule


def test_one_that_says_nothing_objects_to_nobody() -> None:
    assert Narrowing().objection("dc1", "") == ""


def test_a_denial_stays_one_for_everybody() -> None:
    """Were it to hold for dc1 alone, others would gain by it."""
    rules = meta_of({"source-datacenters": "dc1"}, "web", action="deny")
    policy = policy_of(rules, "db", default_allow=True)
    for datacenter, _ in WEB:
        assert authorize(policy, caller(datacenter), None).reason is VerdictReason.INTENTION_DENY


def test_a_narrowed_rule_does_not_leave_it_to_the_next() -> None:
    """Precedence decides first: the wildcard below it allows, and is not asked."""
    rules = [*meta_of({"source-datacenters": "dc1"}, "web"), *meta_of({}, "*")]
    assert not authorize(policy_of(rules, "db", default_allow=True), caller("dc2"), None).allowed


def test_a_caller_to_be_judged_by_request_is_narrowed_too() -> None:
    rule = {
        "SourceName": "web",
        "DestinationName": "db",
        "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}],
        "Meta": {"source-datacenters": "dc1"},
    }
    policy = policy_of([rule], "db", default_allow=True)
    assert authorize_caller(policy, caller("dc1"), None).allowed
    assert authorize_caller(policy, caller("dc2"), None).reason is VerdictReason.NARROWED


@pytest.mark.parametrize("text", ["web@dc1", "web@dc1,dc3", "*@dc1,dc2=>dc2", "web@*=>dc2", "*@*"])
def test_settings(text: str) -> None:
    assert str(parse_setting(text)) == text


@pytest.mark.parametrize("text", ["", "web", "web@", "@dc1", "web@dc1=>", "web@d c", "web@dc1;dc2", "web@,"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"datacenter|write SOURCE"):
        parse_setting(text)


def test_a_destination_may_be_narrowed_for_one_source_alone() -> None:
    meta = {"destination-datacenters:web": "dc9"}
    (narrowing,) = parse_meta(meta, "*")
    assert narrowing.covers("web")
    assert not narrowing.covers("api")
    assert parse_meta(meta, "api") == ()


def test_no_meta_narrows_nothing() -> None:
    assert parse_meta({}, "web") == parse_meta({"owner": "x"}, "web") == ()
