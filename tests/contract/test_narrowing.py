"""Narrowing by datacenter rides in an intention's Meta: written once in the primary, in force in both."""

from __future__ import annotations

import subprocess

import pytest

from agent.policy.authorize import authorize
from certs.spiffe import ServiceId, TrustDomain
from tests.contract.client import Api
from tests.contract.federation import Federation
from tests.support.agent_process import command, environment
from tests.support.policies import policy_of

MATCH = "/v1/connect/intentions/match?by=destination"


@pytest.fixture
def narrowed(federation: Federation, name: str) -> str:
    """A service that web may call from dc1 alone, api from anywhere; dc2 has heard of it."""
    entry = {
        "Kind": "service-intentions",
        "Name": name,
        "Sources": [{"Name": "web", "Action": "allow"}, {"Name": "api", "Action": "allow"}],
        "Meta": {"source-datacenters:web": "dc1"},
    }
    assert federation.dc1.put("/v1/config", entry).text == "true"
    federation.dc2.until(f"{MATCH}&name={name}", lambda answer: answer[name])
    return name


def caller(service: str, datacenter: str) -> ServiceId:
    return ServiceId(trust_domain=TrustDomain("x.consul"), datacenter=datacenter, service=service)


def test_one_datacenter_is_allowed_and_the_other_denied_in_both(
    federation: Federation, narrowed: str
) -> None:
    for api in federation:
        match = api.get(f"{MATCH}&name={narrowed}").json[narrowed]
        policy = policy_of(match, narrowed, default_allow=True)
        assert [authorize(policy, caller("web", dc), None).allowed for dc in ("dc1", "dc2")] == [
            True,
            False,
        ]
        assert [authorize(policy, caller("api", dc), None).allowed for dc in ("dc1", "dc2")] == [
            True,
            True,
        ]


@pytest.mark.parametrize(("source", "code"), [("web@dc1", 0), ("web@dc2", 1), ("api@dc2", 0)])
def test_explain_says_so_of_both(federation: Federation, narrowed: str, source: str, code: int) -> None:
    for api in federation:
        ended = explain(api, "-source", source, "-destination", f"{narrowed}@{api.name}")
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert ("narrowed_by_datacenter" in ended.stdout) is bool(code)


def explain(api: Api, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("explain", "-http-addr", api.url, *words),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
