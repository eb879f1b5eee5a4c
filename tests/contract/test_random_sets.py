"""Two hundred random sets of policy: we, a datacenter's `check` and its `authorize` say the same of each.

Beside a real Consul that is Consul's own word; beside the embedded datacenter, which knows the rules from
another hand than ours, it is held to the same sets. The sets are the same in every run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from agent.policy.authorize import authorize
from certs.spiffe import ServiceId, TrustDomain
from tests.contract.alone import Default, alone
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.support.policies import policy_of

SETS = 200
SOURCES = ("web", "Web", "api", "*")
CALLERS = (("web", "dc1"), ("Web", "dc2"), ("api", "dc1"), ("other", "dc1"))
DECISIONS: dict[str, dict[str, Any]] = {
    "allow": {"Action": "allow"},
    "deny": {"Action": "deny"},
    "by request": {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]},
}
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSet:
    """Source -> decision, for one destination and for all of them; `entry`: written as one config entry."""

    name: str
    exact: dict[str, str]
    general: dict[str, str]
    entry: bool


def random_set(number: int) -> RandomSet:
    """The set of that number."""
    rng = Random(number)
    layered = rng.random() < 0.3
    return RandomSet(
        name=f"set{number}",
        exact=_decisions(rng, ["allow", "deny", *(["by request"] if layered else [])]),
        general=_decisions(rng, ["allow", "deny"]),
        entry=rng.random() < 0.5,
    )


def _decisions(rng: Random, from_: list[str]) -> dict[str, str]:
    return {source: rng.choice(from_) for source in rng.sample(SOURCES, rng.randrange(len(SOURCES) + 1))}


def accept(api: Api, method: str, path: str, body: object = None) -> None:
    answer = api.call(method, path, body)
    assert answer.status == 200, answer.text


def write(api: Api, wanted: RandomSet) -> None:
    """Have exactly those rules for that destination, and for all destinations."""
    if "by request" in wanted.exact.values():
        defaults = {"Kind": "service-defaults", "Name": wanted.name, "Protocol": "http"}
        accept(api, "PUT", "/v1/config", defaults)
    write_entry(api, "*", wanted.general)
    if wanted.entry:
        write_entry(api, wanted.name, wanted.exact)
        return
    for source, decision in wanted.exact.items():
        path = f"/v1/connect/intentions/exact?source={source}&destination={wanted.name}"
        accept(api, "PUT", path, DECISIONS[decision])


def write_entry(api: Api, destination: str, decisions: dict[str, str]) -> None:
    if not decisions:
        accept(api, "DELETE", f"/v1/config/service-intentions/{destination}")
        return
    sources = [{"Name": source, **DECISIONS[decision]} for source, decision in decisions.items()]
    accept(api, "PUT", "/v1/config", {"Kind": "service-intentions", "Name": destination, "Sources": sources})


@dataclass(frozen=True, slots=True)
class Judgement:
    """Allowed or not, and the precedence of the rule that says so; None: the default."""

    allowed: bool
    precedence: int | None


def ours(api: Api, name: str) -> dict[str, Judgement]:
    """What we make of the match list."""
    answer = api.get(f"/v1/connect/intentions/match?by=destination&name={name}")
    default = answer.headers["x-consul-default-acl-policy"]
    policy = policy_of(answer.json[name], name, default_allow=default == "allow")
    found = {}
    for service, datacenter in CALLERS:
        caller = ServiceId(trust_domain=TrustDomain(DOMAIN), datacenter=datacenter, service=service)
        rule = policy.deciding(caller)
        allowed = authorize(policy, caller, None).allowed
        found[service] = Judgement(allowed, None if rule is None else rule.precedence)
    return found


def theirs(api: Api, name: str) -> dict[str, Judgement]:
    """What the datacenter says when it is asked, of which both ways must be the same."""
    found = {}
    for service, datacenter in CALLERS:
        checked = api.get(f"/v1/connect/intentions/check?source={service}&destination={name}").json
        uri = f"spiffe://{DOMAIN}/ns/default/dc/{datacenter}/svc/{service}"
        body = {"Target": name, "ClientCertURI": uri, "ClientCertSerial": "01"}
        said: dict[str, Any] = api.post("/v1/agent/connect/authorize", body).json
        assert checked == {"Allowed": said["Authorized"]}
        precedence = re.search(r"Precedence: (\d+)", said["Reason"])
        assert (precedence is None) == (said["Reason"] == "Default behavior configured by ACLs")
        found[service] = Judgement(said["Authorized"], None if precedence is None else int(precedence[1]))
    return found


@pytest.fixture(scope="module", params=["allow", "deny"])
def default(request: pytest.FixtureRequest) -> Default:
    """What holds where no rule speaks."""
    found: Default = request.param
    return found


@pytest.fixture(scope="module", params=KINDS)
def judge(
    request: pytest.FixtureRequest, default: Default, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """A datacenter to ask."""
    with alone(request.param, default, tmp_path_factory.mktemp("judge")) as api:
        yield api


def test_no_verdict_differs(judge: Api, default: Default) -> None:
    seen: set[Judgement] = set()
    for wanted in map(random_set, range(SETS)):
        write(judge, wanted)
        found = ours(judge, wanted.name)
        assert found == theirs(judge, wanted.name), wanted
        seen.update(found.values())
    by_rules = {Judgement(allowed, precedence) for allowed in (True, False) for precedence in (9, 8, 6, 5)}
    assert seen == by_rules | {Judgement(default == "allow", None)}, "every way to decide has been met"
