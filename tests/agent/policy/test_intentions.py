"""Which intention decides, and what it says (docs/consul-api.md#intentions)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.http1.request import HttpRequest
from agent.policy.authorize import Verdict, VerdictReason, authorize, authorize_caller, authorize_request
from agent.policy.intentions import InvalidIntentions, parse_match
from certs.spiffe import ServiceId, TrustDomain
from tests.recorded import body
from tests.support.policies import policy_of


def caller(service: str, **changes: str) -> ServiceId:
    return ServiceId(
        trust_domain=TrustDomain("x.consul"), service=service, **{"datacenter": "dc1", **changes}
    )


def rule(
    source: str, destination: str = "db", action: str | None = "allow", **changes: Any
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "SourceNS": "default",
        "SourceName": source,
        "DestinationNS": "default",
        "DestinationName": destination,
        "SourceType": "consul",
        "Precedence": 0,
        **changes,
    }
    return item if action is None else {**item, "Action": action}


def verdict(source: str | ServiceId, *rules: dict[str, Any], default_allow: bool = False) -> Verdict:
    who = caller(source) if isinstance(source, str) else source
    return authorize(policy_of(rules, "db", default_allow=default_allow), who, None)


@pytest.mark.parametrize(
    ("source", "allowed", "text"),
    [
        ("web", True, "web => db (allow, precedence 9)"),
        ("viasec", True, "viasec => db (allow, precedence 9)"),
        ("cache", False, "* => db (deny, precedence 8)"),
        ("WEB", False, "* => db (deny, precedence 8)"),
    ],
)
def test_recorded_precedence(source: str, allowed: bool, text: str) -> None:
    answer = body("intention-match-dest-precedence")["db"]
    for order in (answer, answer[::-1]):
        found = authorize(policy_of(order, "db", default_allow=False), caller(source), None)
        assert (found.allowed, found.rule) == (allowed, text)


def test_computed_precedence_is_the_recorded_one() -> None:
    answer = body("intention-match-dest-precedence")["db"]
    rules = parse_match(answer, "db", default_allow=False).rules
    assert [(r.source, r.destination, r.precedence) for r in rules] == [
        (item["SourceName"], item["DestinationName"], item["Precedence"]) for item in answer
    ]


def test_recorded_permissions_deny_at_layer_4() -> None:
    answer = body("intention-match-l7")["httpsvc"]
    found = authorize(policy_of(answer, "httpsvc", default_allow=True), caller("web"), None)
    assert found == Verdict(
        allowed=False,
        reason=VerdictReason.INTENTION_BY_REQUEST,
        rule="web => httpsvc (by request, precedence 9)",
    )


@pytest.mark.parametrize("default_allow", [True, False])
def test_recorded_empty_match_leaves_it_to_the_default(default_allow: bool) -> None:
    found = authorize(
        policy_of(body("intention-match-empty")["zzz"], "zzz", default_allow=default_allow),
        caller("web"),
        None,
    )
    assert found.allowed is default_allow
    assert found.reason is (VerdictReason.DEFAULT_ALLOW if default_allow else VerdictReason.DEFAULT_DENY)
    assert found.rule == f"default policy ({'allow' if default_allow else 'deny'})"


def test_legacy_intentions_with_an_id_are_like_others() -> None:
    assert authorize(
        policy_of(body("intention-match-dest")["db"], "db", default_allow=False), caller("web"), None
    ).allowed


def test_exact_source_beats_wildcard_source() -> None:
    rules = (rule("*", action="deny"), rule("web"))
    assert verdict("web", *rules).allowed
    assert verdict("cache", *rules).reason is VerdictReason.INTENTION_DENY


def test_exact_destination_beats_exact_source() -> None:
    assert not verdict("web", rule("web", "*"), rule("*", "db", "deny")).allowed


def test_wildcards_are_whole_names() -> None:
    assert verdict("web", rule("w*")).reason is VerdictReason.DEFAULT_DENY


def test_datacenter_and_trust_domain_of_the_caller_do_not_matter() -> None:
    assert verdict(caller("web", datacenter="dc7"), rule("web")).allowed


def test_the_source_is_compared_exactly_and_the_destination_in_any_case() -> None:
    assert not verdict("WEB", rule("web")).allowed
    assert verdict("web", rule("web", "DB")).allowed
    assert (
        verdict("web", rule("web", "DB", "deny"), default_allow=True).reason is VerdictReason.INTENTION_DENY
    )


def test_a_denial_filed_under_the_lower_cased_name_keeps_out_its_source() -> None:
    """As Consul answers `match?name=Service_A`: the rule for service_a, the source in its own case."""
    rules = [rule("USTest", "service_a", "deny")]
    policy = policy_of(rules, "Service_A", default_allow=True)
    assert authorize(policy, caller("USTest"), None).reason is VerdictReason.INTENTION_DENY
    assert authorize(policy, caller("ustest"), None).allowed


def test_an_allowance_filed_under_the_lower_cased_name_beats_a_general_denial() -> None:
    rules = [rule("*", "*", "deny"), rule("USTest", "service_a")]
    policy = policy_of(rules, "Service_A", default_allow=False)
    assert authorize(policy, caller("USTest"), None).allowed
    assert not authorize(policy, caller("ustest"), None).allowed


def test_two_spellings_of_the_destination_are_one_pair_whose_denial_holds() -> None:
    for spelling in ("DB", "db", "dB"):
        assert not verdict("web", rule("web", spelling, "deny"), rule("web", "Db")).allowed


@pytest.mark.parametrize(
    "elsewhere",
    [
        rule("web", SourcePeer="east"),
        rule("web", SourcePartition="sales"),
        rule("web", SourceNS="team"),
    ],
)
def test_rules_about_others_never_decide(elsewhere: dict[str, Any]) -> None:
    assert verdict("web", elsewhere).reason is VerdictReason.DEFAULT_DENY


UNCLEAR: list[dict[str, Any]] = [
    {"SourceType": "external-uri"},
    {"SourceSamenessGroup": "group"},
    {"Conditions": [{"Header": "x"}]},
    {"SourceSelector": "team == a"},
    {"DestinationPartition": "sales"},
    {"DestinationNS": "team"},
    {"DestinationName": "cache"},
    {"Precedence": 3},
    {"Meta": ["source-datacenters"]},
    {"Permissions": {"New": "form"}},
]


@pytest.mark.parametrize("unclear", UNCLEAR, ids=lambda unclear: next(iter(unclear)))
def test_an_intention_that_is_not_understood_denies_whom_it_may_mean(unclear: dict[str, Any]) -> None:
    for action in ("allow", "deny"):
        for rules in (
            [rule("web", action=action, **unclear), rule("*")],
            [rule("*", action=action, **unclear), rule("*", "*"), rule("web", "*")],
            [rule("web", action=action, **unclear), rule("web")],
        ):
            for default_allow in (True, False):
                found = verdict("web", *rules, default_allow=default_allow)
                assert (found.allowed, found.reason) == (False, VerdictReason.UNSUPPORTED_INTENTION)
                assert "not understood: " in found.rule


@pytest.mark.parametrize("unclear", UNCLEAR, ids=lambda unclear: next(iter(unclear)))
def test_what_is_not_understood_about_one_source_touches_no_other(unclear: dict[str, Any]) -> None:
    anyone = unclear.keys() & {"SourceType", "SourceSelector"}
    for rules in (
        [rule("web", action="deny", **unclear), rule("*")],
        [rule("*", action="deny", **unclear), rule("api")],
    ):
        assert verdict("api", *rules).allowed is not bool(anyone)


def test_a_rule_for_requests_that_is_not_understood_denies_the_connection_and_every_request() -> None:
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
    policy = policy_of(
        [rule("web", action=None, Permissions=permissions, Conditions=[1])], "db", default_allow=True
    )
    request = HttpRequest(method="GET", paths=("/",), headers={})
    assert not policy.intentions.by_request
    for found in (
        authorize(policy, caller("web"), None),
        authorize_caller(policy, caller("web"), None),
        authorize_request(policy, caller("web"), request, None),
    ):
        assert (found.allowed, found.reason) == (False, VerdictReason.UNSUPPORTED_INTENTION)


def test_rules_that_are_not_understood_are_listed_for_a_person() -> None:
    unread = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}, "Limits": {}}]
    rules = [rule("web", Conditions=[1]), rule("api"), rule("ci", action=None, Permissions=unread)]
    assert parse_match(rules, "db", default_allow=False).unsupported == [
        "web => db (allow, precedence 9, not understood: unknown fields 'Conditions')",
        "ci => db (by request, precedence 9), Object contains unknown field `Limits` - at `$[0]`",
    ]


@pytest.mark.parametrize(("datacenter", "allowed"), [("dc1", True), ("DC1", True), ("dc2", False)])
def test_a_denial_of_a_peer_holds_against_callers_of_other_datacenters(
    datacenter: str, *, allowed: bool
) -> None:
    """A peer may be another datacenter of our own federation, whose certificates are as ours are."""
    for name in ("web", "*"):
        rules = [rule(name, action="deny", SourcePeer="east"), rule("*")]
        policy = replace(policy_of(rules, "db", default_allow=False), datacenter="dc1")
        found = authorize(policy, caller("web", datacenter=datacenter), None)
        assert found.allowed is allowed
        assert allowed or found.reason is VerdictReason.UNSUPPORTED_INTENTION
        unknown = replace(policy, datacenter="")
        assert not authorize(unknown, caller("web", datacenter=datacenter), None).allowed


def test_callers_of_a_partition_are_judged_by_the_rules_about_it() -> None:
    stranger = caller("web", partition="sales")
    assert verdict(stranger, rule("web", SourcePartition="sales")).allowed
    assert not verdict(
        stranger, rule("*", action="deny", SourcePartition="sales"), default_allow=True
    ).allowed


@pytest.mark.parametrize("changes", [{"SourcePartition": "default"}, {"SourceNS": ""}, {"SourcePeer": ""}])
def test_defaults_may_be_spelled_out_or_empty(changes: dict[str, str]) -> None:
    assert verdict("web", rule("web", **changes)).allowed


def test_keys_consul_leaves_out_may_be_absent() -> None:
    assert verdict("web", {"SourceName": "web", "DestinationName": "db", "Action": "allow"}).allowed


def test_caller_of_another_namespace_is_nobody_here() -> None:
    """As recorded in authorize-other-ns: the rules of the default namespace do not speak of it."""
    stranger = caller("web", namespace="foo")
    assert verdict(stranger, rule("web"), rule("*")).reason is VerdictReason.DEFAULT_DENY
    assert verdict(stranger, rule("*", SourceNS="*", action="deny"), default_allow=True).allowed is False


def test_caller_of_another_partition_is_left_to_the_default() -> None:
    stranger = caller("web", partition="sales")
    assert verdict(stranger, rule("web"), rule("*", SourceNS="*")).reason is VerdictReason.DEFAULT_DENY


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (rule("web", action=None), VerdictReason.INTENTION_DENY),
        (rule("web", action="ALLOW"), VerdictReason.UNSUPPORTED_INTENTION),
        (rule("web", action="log"), VerdictReason.UNSUPPORTED_INTENTION),
        (rule("web", action=None, Permissions=[]), VerdictReason.INTENTION_DENY),
        (rule("web", action=None, Permissions=[{"Action": "allow"}]), VerdictReason.INTENTION_BY_REQUEST),
        (rule("web", Permissions=[{"Action": "allow"}]), VerdictReason.INTENTION_BY_REQUEST),
    ],
)
def test_what_is_not_plainly_allowed_is_denied(item: dict[str, Any], reason: VerdictReason) -> None:
    found = verdict("web", item, default_allow=True)
    assert (found.allowed, found.reason) == (False, reason)


def test_of_two_rules_that_contradict_each_other_the_denial_holds() -> None:
    for rules in ((rule("web"), rule("web", action="deny")), (rule("web", action="deny"), rule("web"))):
        assert not verdict("web", *rules).allowed


def test_errors_name_the_path_of_the_field() -> None:
    with pytest.raises(InvalidIntentions, match=r"intentions of db: .*\$\[1\]\.SourceName"):
        policy_of([rule("web"), rule("web", SourceName=3)], "db", default_allow=True)


def test_an_answer_that_is_no_list_is_an_error() -> None:
    with pytest.raises(InvalidIntentions):
        policy_of({"db": []}, "db", default_allow=True)  # type: ignore[arg-type]
