"""What decides beside the rules (those: test_intentions.py): age, narrowings, our datacenter, audit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.http1.request import HttpRequest
from agent.policy.authorize import VerdictReason, authorize, authorize_caller, authorize_request
from agent.policy.narrowing import parse_setting
from tests.agent.policy.test_intentions import caller, rule
from tests.support.policies import policy_of

SINCE = datetime(2031, 5, 17, 12, tzinfo=UTC)


def test_age_takes_away_what_a_narrowing_would_and_says_that_it_is_the_age() -> None:
    narrowed = policy_of([rule("web")], default_allow=True, narrowings=(parse_setting("web@dc9"),))
    assert authorize(narrowed, caller("web"), None).reason is VerdictReason.NARROWED
    assert authorize(narrowed, caller("web"), SINCE).reason is VerdictReason.INTENTIONS_TOO_OLD


def test_our_datacenter_is_what_a_narrowing_of_the_destination_is_held_to() -> None:
    for datacenter, allowed in (("dc1", True), ("dc2", False), ("", False)):
        policy = policy_of(
            [rule("web")],
            default_allow=False,
            narrowings=(parse_setting("web@*=>dc1"),),
            datacenter=datacenter,
        )
        assert authorize(policy, caller("web"), None).allowed is allowed


def test_audit_lets_through_and_names_what_would_have_denied() -> None:
    policy = policy_of([rule("web", action="deny")], default_allow=True, audit=True)
    verdict = authorize(policy, caller("web"), None)
    assert (verdict.allowed, verdict.audited) == (True, True)
    assert verdict.reason is VerdictReason.INTENTION_DENY


@pytest.mark.parametrize("default_allow", [True, False])
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_too_old_decides_before_any_rule_and_is_only_audited_by_audit(
    action: str, *, default_allow: bool
) -> None:
    old = policy_of([rule("web", action=action)], default_allow=default_allow)
    request = HttpRequest(method="GET", paths=("/",), headers={})
    for source in (caller("web"), caller("elsewhere")):
        for found in (
            authorize(old, source, SINCE),
            authorize_caller(old, source, SINCE),
            authorize_request(old, source, request, SINCE),
        ):
            assert (found.allowed, found.reason) == (False, VerdictReason.INTENTIONS_TOO_OLD)
            assert found.rule == f"intentions are too old since {SINCE.isoformat()} (intentions_max_age)"
        audited = authorize(replace(old, audit=True), source, SINCE)
        assert (audited.allowed, audited.audited) == (True, True)
        assert audited.reason is VerdictReason.INTENTIONS_TOO_OLD


def test_a_permission_is_put_into_words_once() -> None:
    permissions = [
        {"Action": "deny", "HTTP": {"PathExact": "/a"}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/"}},
    ]
    item = {"SourceName": "web", "DestinationName": "db", "Permissions": permissions}
    policy = policy_of([item], "db", default_allow=False)
    verdicts = [
        authorize_request(policy, caller("web"), HttpRequest(method="GET", paths=(path,), headers={}), None)
        for path in ("/a", "/b", "/a", "/b")
    ]
    assert [verdict.allowed for verdict in verdicts] == [False, True, False, True]
    assert verdicts[0] is verdicts[2]
    assert verdicts[1] is verdicts[3]
    assert policy == policy_of([item], "db", default_allow=False)


ID = "f5a2b8cd-0000-4a5e-9d83-53be5e1ab1c4"


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_a_verdict_has_the_id_of_its_rule_where_consul_answers_one(action: str) -> None:
    """A legacy intention has one (1.10), a config entry has none (docs/consul-api.md#intentions)."""
    policy = policy_of([rule("web", action=action, ID=ID), rule("api", action=action)], default_allow=False)
    assert authorize(policy, caller("web"), None).intention == ID
    assert authorize(policy, caller("api"), None).intention == ""
    assert authorize(policy, caller("other"), None).intention == ""


@pytest.mark.parametrize("odd", [7, None, ["a"], {"a": 1}, "x" * 5000])
def test_an_odd_id_changes_no_verdict_and_is_shown_within_bounds(odd: object) -> None:
    verdict = authorize(policy_of([rule("web", ID=odd)], default_allow=False), caller("web"), None)
    assert verdict.allowed
    assert len(verdict.intention) <= 64


def test_a_narrowed_call_keeps_the_id_of_the_rule_that_would_have_allowed_it() -> None:
    narrowed = policy_of([rule("web", ID=ID)], default_allow=False, narrowings=(parse_setting("web@dc9"),))
    verdict = authorize(narrowed, caller("web"), None)
    assert (verdict.allowed, verdict.intention) == (False, ID)
