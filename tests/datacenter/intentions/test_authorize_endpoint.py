"""`/v1/agent/connect/authorize`, beyond what is recorded."""

from __future__ import annotations

import pytest

from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import Site, Wan, token

PATH = "/v1/agent/connect/authorize"
DOMAIN = "spiffe://11111111-2222-3333-4444-555555555555.consul"


async def ask(site: Site, uri: str, target: str = "db") -> tuple[int, object]:
    body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "01"}
    answered = await site.call("POST", PATH, body)
    return answered.status, answered.body


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (DOMAIN, "Service"),
        (f"{DOMAIN}/agent/client/dc/dc1/id/n1", "Service"),
        (f"{DOMAIN}/agent/server/dc/dc1", "Connect"),
        (f"{DOMAIN}/gateway/mesh/dc/dc1", "Connect"),
        (f"{DOMAIN}/something/else", "Connect"),
        (f"{DOMAIN}/ap/default/ns/default/dc/dc1/svc/web", "Connect"),
        ("https://example.com/", "Connect"),
        ("", "Connect"),
    ],
)
async def test_who_is_not_a_service_is_400(uri: str, text: str) -> None:
    """1.10 does not know the forms of later versions."""
    expected = f"Bad request: ClientCertURI not a valid {text} identifier"
    assert await ask(Wan().site("dc1"), uri) == (400, expected)


async def test_a_verdict_changes_with_the_rules_at_once() -> None:
    site = Wan().site("dc1")
    uri = f"{DOMAIN}/ns/default/dc/dc9/svc/web"
    default = {"Authorized": True, "Reason": "ACLs disabled, access is allowed by default"}
    assert await ask(site, uri) == (200, default)
    await site.put("/v1/connect/intentions/exact?source=*&destination=*", {"Action": "deny"})
    reason = "Matched L4 intention: default/* => default/* (Precedence: 5, Action: DENY)"
    assert await ask(site, uri) == (200, {"Authorized": False, "Reason": reason})


async def test_the_memory_of_targets_is_bounded() -> None:
    site = Wan().site("dc1")
    uri = f"{DOMAIN}/ns/default/dc/dc1/svc/web"
    for number in range(1100):
        assert (await ask(site, uri, f"t{number}"))[0] == 200
    body = {"Target": "t1099", "ClientCertURI": uri}
    assert (await site.call("POST", PATH, body)).headers["X-Cache"] == "MISS"


async def test_a_target_is_one_in_any_case_and_a_caller_is_not() -> None:
    site = Wan().site("dc1")
    await site.put("/v1/connect/intentions/exact?source=USTest&destination=service_a", {"Action": "deny"})
    for caller, allowed in (("USTest", False), ("ustest", True)):
        status, said = await ask(site, f"{DOMAIN}/ns/default/dc/dc1/svc/{caller}", "Service_A")
        assert isinstance(said, dict)
        assert (status, said["Authorized"]) == (200, allowed)


@pytest.mark.parametrize("setting", ["allow", "deny"])
@pytest.mark.parametrize("acl_allows", [True, False])
async def test_the_default_for_intentions_shows_in_authorize_alone(setting: str, *, acl_allows: bool) -> None:
    """As Consul does since 1.18: the header and check say what ACLs do by default."""
    site = Wan().site(
        "dc1",
        default_intention_policy=setting,
        default_policy_allows=acl_allows,
        tokens=(token("writer", Policy(service_prefix={"": Access.WRITE})),),
    )
    for namespace in ("default", "elsewhere"):
        body = {"Target": "db", "ClientCertURI": f"{DOMAIN}/ns/{namespace}/dc/dc1/svc/web"}
        answered = await site.call("POST", PATH, body, token="writer")
        assert answered.body == {"Authorized": setting == "allow", "Reason": "Default intention policy"}
        assert answered.headers["X-Consul-Default-Acl-Policy"] == ("allow" if acl_allows else "deny")
    check = "/v1/connect/intentions/check?source=web&destination=db"
    answered = await site.call("GET", check, token="writer")
    assert answered.body == {"Allowed": acl_allows}
