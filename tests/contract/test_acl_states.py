"""Each state of a token, with each right missing: what `doctor` says of it, and that its remedy cures it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from agent.base.clock import now
from agent.cli.doctor import examine
from agent.cli.findings import Finding
from agent.config.settings import resolve
from tests.contract.conftest import KINDS
from tests.contract.rights import MINIMAL, RULE, Rights, one_a_name, rights

UNKNOWN = "11111111-2222-3333-4444-555555555555"
# A newer Consul hands out a leaf to any token (docs/consul-api.md#leaf), so that the right to read intentions
# is missed first, and the right to write only when that is there.
MOST_TURNS = 2
REFUSED = ("registration", "identity")  # questions without these are refused; the other lists are empty


@pytest.fixture(scope="module", params=KINDS)
def granting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rights]:
    with rights(request.param, tmp_path_factory.mktemp(f"states-{request.param}")) as made:
        yield made


def told(url: str, token: str) -> list[Finding]:
    """What doctor finds that a token, or a better one, would cure."""
    flags = {"sidecar-for": ["web"], "http-addr": [url.removeprefix("http://")]}
    settings = resolve(flags | ({"token": [token]} if token else {}), {}).settings
    assert settings is not None
    return [finding for finding in trio.run(examine, settings, now) if "token" in finding.remedy]


def rules_of(findings: list[Finding]) -> set[str]:
    """The rules that the remedies name, as a policy has them."""
    return {match[0] for finding in findings for match in RULE.finditer(finding.remedy)}


def subject(rule_or_right: str) -> str:
    """What a rule is about, whatever it grants: `service "web"`."""
    return MINIMAL.get(rule_or_right, rule_or_right).partition(" {")[0]


def named_subjects(findings: list[Finding]) -> set[str]:
    return {subject(rule) for rule in rules_of(findings)}


def lacking(right: str) -> list[str]:
    return [rule for name, rule in MINIMAL.items() if name != right]


@pytest.mark.parametrize("right", MINIMAL)
def test_without_a_token_it_says_so_and_a_valid_one_cures_it(granting: Rights, right: str) -> None:
    granted = granting.grant(list(MINIMAL.values()), anonymous=lacking(right))
    findings = told(granted.url, "")
    assert subject(right) in named_subjects(findings)
    if right in REFUSED:
        assert any("no token is given, and the anonymous one lacks" in one.remedy for one in findings)
        assert any("give a valid one with -token-file or CONSUL_HTTP_TOKEN" in one.remedy for one in findings)
    assert told(granted.url, granted.secret) == []


@pytest.mark.parametrize("right", MINIMAL)
def test_an_unknown_token_is_named_whatever_is_missing_and_a_valid_one_cures_it(
    granting: Rights, right: str
) -> None:
    granted = granting.grant(list(MINIMAL.values()), anonymous=lacking(right))
    findings = told(granted.url, UNKNOWN)
    assert findings
    assert all(one.remedy.startswith("Consul does not know this token") for one in findings)
    assert "give a valid one with -token-file or CONSUL_HTTP_TOKEN" in findings[0].remedy
    assert told(granted.url, granted.secret) == []


@pytest.mark.parametrize("right", MINIMAL)
def test_a_token_that_lacks_a_right_is_told_the_rule_and_the_rule_cures_it(
    granting: Rights, right: str
) -> None:
    weak = granting.grant(lacking(right))
    findings = told(weak.url, weak.secret)
    assert not any("no token is given" in one.remedy or "does not know" in one.remedy for one in findings)
    assert subject(right) in named_subjects(findings)
    rules = lacking(right)
    for _ in range(MOST_TURNS):
        rules = one_a_name([*rules, *rules_of(findings)])
        cured = granting.grant(rules)
        if not (findings := told(cured.url, cured.secret)):
            break
    assert findings == []


def test_the_minimal_policy_is_enough(granting: Rights) -> None:
    granted = granting.grant(list(MINIMAL.values()))
    assert told(granted.url, granted.secret) == []
