"""`/v1/agent/connect/authorize`, beyond what is recorded."""

from __future__ import annotations

import pytest

from tests.datacenter.sites import Site, Wan

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
