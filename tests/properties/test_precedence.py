"""Intentions against an oracle that knows only the table of precedence and looks at every rule.

See docs/consul-api.md#intentions.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.authorize import VerdictReason, authorize
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import policy_of

# (source exact?, destination exact?) -> precedence, as the contract tabulates it for one namespace.
TABLE = {(True, True): 9, (False, True): 8, (True, False): 6, (False, False): 5}

services = st.sampled_from(["web", "Web", "api", "db"])
patterns = st.sampled_from(["web", "Web", "api", "*"])
targets = st.sampled_from(["db", "DB", "*"])
items = st.fixed_dictionaries(
    {"SourceName": patterns, "DestinationName": targets, "SourceNS": st.just("default")},
    optional={
        "Action": st.sampled_from(["allow", "deny"]),
        "Permissions": st.sampled_from([None, [], [{"Action": "allow"}]]),
        "SourcePartition": st.sampled_from(["", "default", "sales"]),
        "SourceType": st.sampled_from(["", "consul", "uri"]),
        "SourceSamenessGroup": st.sampled_from(["", "group"]),
        "DestinationNS": st.sampled_from(["default", "team"]),
        "Conditions": st.just([1]),
        "Precedence": st.sampled_from([0, 0, 9, 8, 6, 5]),
    },
)
UNCLEAR = ("SourceSamenessGroup", "Conditions")


def oracle(rules: list[dict[str, Any]], source: str, *, default_allow: bool) -> bool:
    """Look at every rule, keep the highest precedence seen; among equals any denial denies.

    A rule that is not understood denies, and means anyone where the type of its source is not known.
    """
    best, allowed = 0, default_allow
    for rule in rules:
        anyone = rule.get("SourceType") == "uri"
        if not anyone and rule["SourceName"] not in (source, "*"):
            continue
        exact = TABLE[(anyone or rule["SourceName"] != "*", rule["DestinationName"] != "*")]
        stated = rule.get("Precedence", 0)
        usual = TABLE[(rule["SourceName"] != "*", rule["DestinationName"] != "*")]
        unclear = anyone or stated not in (0, usual) or any(rule.get(name) for name in UNCLEAR)
        unclear = unclear or rule.get("DestinationNS") == "team"
        if not unclear and rule.get("SourcePartition") == "sales":
            continue
        precedence = max(exact, stated) if unclear else exact
        allows = rule.get("Action") == "allow" and not rule.get("Permissions") and not unclear
        if precedence > best:
            best, allowed = precedence, allows
        elif precedence == best:
            allowed = allowed and allows
    return allowed


def judge(rules: list[dict[str, Any]], source: str, *, default_allow: bool) -> bool:
    caller = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service=source)
    return authorize(policy_of(rules, "db", default_allow=default_allow), caller, None).allowed


@settings(max_examples=2000)
@given(st.lists(items, max_size=12), services, st.booleans())
def test_agrees_with_the_oracle(rules: list[dict[str, Any]], source: str, default_allow: bool) -> None:
    assert judge(rules, source, default_allow=default_allow) is oracle(
        rules, source, default_allow=default_allow
    )


@given(
    st.lists(items, max_size=12).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))),
    services,
)
def test_order_of_the_answer_does_not_matter(
    orders: tuple[list[dict[str, Any]], list[dict[str, Any]]], source: str
) -> None:
    first, second = (policy_of(order, "db", default_allow=False) for order in orders)
    caller = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service=source)
    assert authorize(first, caller, None) == authorize(second, caller, None)


@given(st.lists(items, max_size=12), services)
def test_default_only_speaks_when_no_rule_does(rules: list[dict[str, Any]], source: str) -> None:
    caller = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service=source)
    strict, lax = (
        authorize(policy_of(rules, "db", default_allow=allow), caller, None) for allow in (False, True)
    )
    by_default = strict.reason is VerdictReason.DEFAULT_DENY
    assert by_default == (lax.reason is VerdictReason.DEFAULT_ALLOW)
    assert by_default or strict == lax
