"""What our own list says of those we call: only what keeps us out, whatever we say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from agent.policy.authorize import VerdictReason
from agent.policy.intentions import InvalidIntentions
from agent.policy.source_intentions import parse_outgoing
from certs.spiffe import ServiceId, TrustDomain
from upstreams.endpoints import ExpectedIdentity

DOMAIN = TrustDomain("x.consul")
WEB = ServiceId(trust_domain=DOMAIN, datacenter="dc1", service="web")
DB = ServiceId(trust_domain=DOMAIN, datacenter="dc2", service="db")
PERMISSIONS: dict[str, Any] = {"Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/"}}]}


def rule(source: str, destination: str, action: str = "deny", **more: Any) -> dict[str, Any]:
    decision = {} if "Permissions" in more else {"Action": action}
    return {"SourceName": source, "DestinationName": destination, **decision, **more}


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([], None),
        ([rule("web", "db")], VerdictReason.INTENTION_DENY),
        ([rule("*", "db")], VerdictReason.INTENTION_DENY),
        ([rule("web", "*")], VerdictReason.INTENTION_DENY),
        ([rule("*", "*")], VerdictReason.INTENTION_DENY),
        ([rule("web", "db", "allow")], None),
        ([rule("web", "db", "allow"), rule("*", "*"), rule("web", "*"), rule("*", "db")], None),
        ([rule("*", "db", "allow"), rule("web", "*")], None),
        ([rule("*", "db"), rule("web", "*", "allow")], VerdictReason.INTENTION_DENY),
        ([rule("web", "other")], None),
        ([rule("web", "DB")], VerdictReason.INTENTION_DENY),
        ([rule("web", "Db", "allow"), rule("web", "dB")], VerdictReason.INTENTION_DENY),
        ([rule("WEB", "db")], None),
        ([rule("web", "db", Conditions=[1])], VerdictReason.UNSUPPORTED_INTENTION),
        ([rule("web", "db", "allow", Conditions=[1]), rule("*", "*")], None),
        ([rule("*", "db", SourceType="uri")], VerdictReason.UNSUPPORTED_INTENTION),
        ([rule("billing", "db")], None),
        ([rule("web", "db", **PERMISSIONS)], None),
        ([rule("web", "db", **PERMISSIONS), rule("*", "*")], None),
        ([rule("web", "db", "allow", Meta={"source-datacenters": "dc1"})], None),
        ([rule("web", "db", "allow", Meta={"source-datacenters": "dc2"})], VerdictReason.NARROWED),
        ([rule("web", "db", "allow", Meta={"destination-datacenters": "dc2"})], None),
        ([rule("web", "db", "allow", Meta={"destination-datacenters": "dc1"})], VerdictReason.NARROWED),
        ([rule("web", "db", SourcePeer="east")], None),
    ],
)
def test_who_is_kept_out(rules: list[dict[str, Any]], reason: VerdictReason | None) -> None:
    raw = [msgspec.Raw(msgspec.json.encode(one)) for one in rules]
    for answer in (rules, rules[::-1], raw):
        outgoing = parse_outgoing(answer)
        expected = ExpectedIdentity(datacenter="dc2", service="db")
        for callee in (DB, expected):
            denial = outgoing.denial(WEB, callee)
            assert (denial and denial.reason) == reason
            assert denial is None or ((not denial.allowed and "web" in denial.rule) or "*" in denial.rule)


def test_a_service_is_one_whatever_its_case() -> None:
    outgoing = parse_outgoing([rule("web", "service_a")])
    for name in ("Service_A", "service_a"):
        denial = outgoing.denial(WEB, replace(DB, service=name))
        assert denial is not None
        assert denial.reason is VerdictReason.INTENTION_DENY


def test_null_says_nothing() -> None:
    assert parse_outgoing(None).denial(WEB, DB) is None
    assert parse_outgoing(None).rules == []


def test_audit_notes_what_would_be_denied() -> None:
    denial = replace(parse_outgoing([rule("web", "db")]), audit=True).denial(WEB, DB)
    assert denial is not None
    assert (denial.allowed, denial.audited, denial.reason) == (True, True, VerdictReason.INTENTION_DENY)


def test_another_namespace_or_partition_is_not_spoken_of() -> None:
    outgoing = parse_outgoing([rule("*", "*")])
    for elsewhere in (replace(DB, namespace="team"), replace(DB, partition="sales")):
        assert outgoing.denial(WEB, elsewhere) is None


def test_lists_in_which_nobody_is_kept_out_are_not_kept() -> None:
    """Thousands of services that everybody may call cost nothing, unless something else is general."""
    allowing = [rule("*", f"svc{number}", "allow") for number in range(250)]
    assert parse_outgoing([*allowing, rule("web", "db")]).by_destination.keys() == {"db"}
    shown = parse_outgoing([*allowing, rule("web", "db"), rule("*", "*")])
    assert len(shown.by_destination) == 251
    assert shown.denial(WEB, replace(DB, service="svc7")) is None
    assert "web => db (deny, precedence 9)" in shown.rules


def test_an_item_that_is_none_is_named_by_its_place() -> None:
    for items in ([rule("web", "db"), {"SourceName": "web"}], [rule("web", "db"), msgspec.Raw(b"[]")]):
        with pytest.raises(InvalidIntentions, match="by source, number 2"):
            parse_outgoing(items)
