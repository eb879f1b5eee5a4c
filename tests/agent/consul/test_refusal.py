"""Three refusals are told apart, and each names the one rule that cures it."""

from __future__ import annotations

import pytest

from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.refusal import Refusal, missing_rule, refusal, remedy

MATCH = "/v1/connect/intentions/match"
LEAF = "/v1/agent/connect/ca/leaf/web"
PROXY = "/v1/agent/service/web-sidecar-proxy"


def denied(path: str, text: str = "Permission denied") -> ConsulError:
    return ConsulError(ConsulReason.DENIED, path, text, status=403)


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("ACL not found", True, Refusal.UNKNOWN),
        ("rpc error making call: ACL not found", True, Refusal.UNKNOWN),
        ("token does not exist: ACL not found", True, Refusal.UNKNOWN),
        ("Permission denied", True, Refusal.INSUFFICIENT),
        ("Permission denied", False, Refusal.ABSENT),
        ("ACL not found", False, Refusal.ABSENT),
    ],
)
def test_why_a_token_is_refused(text: str, given: bool, found: Refusal) -> None:
    assert refusal(denied(LEAF, text), given=given) is found


def test_what_is_no_refusal_has_no_remedy() -> None:
    error = ConsulError(ConsulReason.UNAVAILABLE, LEAF, "No cluster leader", status=500)
    assert refusal(error, given=True) is None
    assert remedy(error, given=True, service="web") == ""


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        (PROXY, "Permission denied", 'service "web-sidecar-proxy" { policy = "read" }'),
        (LEAF, "Permission denied", 'service "web" { policy = "write" }'),
        ("/v1/agent/connect/authorize", "Permission denied", 'service "web" { policy = "write" }'),
        (
            MATCH,
            "Permission denied",
            'service "web" { policy = "read" } (which includes intentions',
        ),
        (
            "/v1/health/connect/db",
            "Permission denied",
            (
                'service "db" { policy = "read" }, service "db-sidecar-proxy" { policy = "read" } '
                'and node_prefix "" { policy = "read" }'
            ),
        ),
        ("/v1/query/near/execute", "Permission denied", 'query "near" { policy = "read" }'),
        (
            "/v1/agent/service/register",
            "Permission denied: Missing service:write on web-2",
            'service "web-2" { policy = "write" }',
        ),
        (
            PROXY,
            "Permission denied: token with AccessorID 'x' lacks permission 'service:read' on \"web-p\"",
            'service "web-p" { policy = "read" }',
        ),
        (
            MATCH,
            "Permission denied: token with AccessorID 'x' lacks permission 'intention:read' on \"web\"",
            'service "web" { policy = "read" intentions = "read" }',
        ),
    ],
)
def test_the_rule_that_is_missing(path: str, text: str, rule: str) -> None:
    assert missing_rule(denied(path, text), "web").startswith(rule)
    assert rule in remedy(denied(path, text), given=True, service="web")
