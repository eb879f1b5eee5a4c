"""Intentions that this sidecar cannot honour, as a Consul that can write them answers them.

Which those are depends on the release: one that does not know a field refuses to write it, as the embedded
datacenter does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent.http1.request import HttpRequest
from agent.policy.authorize import Policy, VerdictReason, authorize, authorize_request
from certs.spiffe import ServiceId, TrustDomain
from tests.contract.client import Api
from tests.support.policies import policy_of

DOMAIN = TrustDomain("11111111-2222-3333-4444-555555555555.consul")
REQUEST = HttpRequest(method="GET", paths=("/",), headers={})
JWT = {"Providers": [{"Name": "okta"}]}
PROVIDER = {
    "Kind": "jwt-provider",
    "Name": "okta",
    "Issuer": "okta",
    "JSONWebKeySet": {"Local": {"JWKS": "eyJrZXlzIjpbXX0="}},
}


@pytest.fixture
def http(dc1: Api, name: str) -> Iterator[str]:
    """A service whose requests are looked at, without intentions in the end."""
    assert (
        dc1.put("/v1/config", {"Kind": "service-defaults", "Name": name, "Protocol": "http"}).text == "true"
    )
    yield name
    dc1.delete(f"/v1/config/service-intentions/{name}")
    dc1.delete(f"/v1/config/service-defaults/{name}")


def written(api: Api, name: str, *sources: dict[str, Any], **entry: Any) -> Policy | None:
    """What we read of these rules in dc1; None where the agent does not know how to write them."""
    answer = api.put(
        "/v1/config", {"Kind": "service-intentions", "Name": name, "Sources": list(sources), **entry}
    )
    if answer.status == 400:
        assert "invalid config key" in answer.text
        return None
    assert answer.text == "true"
    listed = api.get(f"/v1/connect/intentions/match?by=destination&name={name}").json[name]
    return replace(policy_of(listed, name, default_allow=True), datacenter="dc1")


def caller(service: str, datacenter: str = "dc1") -> ServiceId:
    return ServiceId(trust_domain=DOMAIN, datacenter=datacenter, service=service)


def authorized(api: Api, name: str, who: ServiceId) -> bool:
    """What the agent says."""
    body = {"Target": name, "ClientCertURI": str(who), "ClientCertSerial": ""}
    said: bool = api.post("/v1/agent/connect/authorize", body).json["Authorized"]
    return said


def test_a_denial_of_a_peer_is_not_of_the_callers_of_our_datacenter(dc1: Api, name: str) -> None:
    rules = ({"Name": "web", "Peer": "east", "Action": "deny"}, {"Name": "*", "Action": "allow"})
    found = written(dc1, name, *rules)
    if found is None:
        return
    assert authorized(dc1, name, caller("web"))
    assert authorize(found, caller("web"), None).allowed
    assert authorize(found, caller("web", "dc2"), None).reason is VerdictReason.UNSUPPORTED_INTENTION
    dc1.delete(f"/v1/config/service-intentions/{name}")


def test_an_allowance_of_a_peer_lets_in_no_caller_of_ours(dc1: Api, name: str) -> None:
    rules = ({"Name": "web", "Peer": "east", "Action": "allow"}, {"Name": "*", "Action": "deny"})
    found = written(dc1, name, *rules)
    if found is None:
        return
    assert not authorized(dc1, name, caller("web"))
    for datacenter in ("dc1", "dc2"):
        assert not authorize(found, caller("web", datacenter), None).allowed
    dc1.delete(f"/v1/config/service-intentions/{name}")


def test_where_a_token_is_asked_for_no_request_is_let_in(dc1: Api, http: str) -> None:
    dc1.put("/v1/config", PROVIDER)
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}, "JWT": JWT}]
    general = {"Name": "*", "Action": "allow"}
    for found in (
        written(dc1, http, {"Name": "web", "Action": "allow"}, general, JWT=JWT),
        written(dc1, http, {"Name": "web", "Permissions": permissions}, general),
    ):
        if found is None:
            return
        assert not authorize(found, caller("web"), None).allowed
        verdict = authorize_request(found, caller("web"), REQUEST, None)
        assert (verdict.allowed, verdict.reason) == (False, VerdictReason.UNSUPPORTED_PERMISSION)
    dc1.delete(f"/v1/config/service-intentions/{http}")
    dc1.delete("/v1/config/jwt-provider/okta")
