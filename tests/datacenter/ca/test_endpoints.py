"""Roots, leaf, configuration and rotation as a client of one datacenter sees them."""

from __future__ import annotations

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from datacenter.ca.keys import KeyKind, load_key
from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import (
    Answered,
    Site,
    Wan,
    token,
)

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"


@pytest.fixture
async def site() -> Site:
    site = Wan().site("dc1")
    site.ca.start()
    return site


def key_of(leaf: dict[str, str]) -> str:
    return leaf["PrivateKeyPEM"]


def configuration(**config: object) -> dict[str, object]:
    return {"Provider": "consul", "Config": config}


async def test_roots_have_the_fields_of_the_contract(autojump_clock: MockClock, site: Site) -> None:
    answer = await site.get(ROOTS)
    (root,) = answer["Roots"]
    assert answer["ActiveRootID"] == root["ID"]
    assert answer["TrustDomain"] == f"{root['ExternalTrustDomain']}.consul"
    assert root["Active"] is True
    assert root["IntermediateCerts"] is None
    assert (root["PrivateKeyType"], root["PrivateKeyBits"]) == ("ec", 256)
    assert root["CreateIndex"] == root["ModifyIndex"] >= 1
    assert root.keys() == {
        "ID", "Name", "SerialNumber", "SigningKeyID", "ExternalTrustDomain", "NotBefore", "NotAfter",
        "RootCert", "IntermediateCerts", "Active", "PrivateKeyType", "PrivateKeyBits",
        "CreateIndex", "ModifyIndex",
    }  # fmt: skip


async def test_the_agents_roots_come_from_a_cache_the_servers_do_not(
    autojump_clock: MockClock, site: Site
) -> None:
    first, again = await site.call("GET", ROOTS), await site.call("GET", ROOTS)
    assert first.headers["X-Cache"] == "MISS"
    assert (again.headers["X-Cache"], again.headers["Age"]) == ("HIT", "0")
    server = await site.call("GET", "/v1/connect/ca/roots")
    assert server.body == again.body
    assert "X-Cache" not in server.headers


async def test_roots_as_pem_are_every_certificate_in_order(autojump_clock: MockClock, site: Site) -> None:
    await site.put(ROTATE)
    answered = await site.call("GET", "/v1/connect/ca/roots?pem=true")
    assert answered.headers["Content-Type"] == "application/pem-certificate-chain"
    assert len(x509.load_pem_x509_certificates(answered.body.encode())) == 3
    assert isinstance(await site.get("/v1/connect/ca/roots?pem=false"), dict)
    assert (await site.call("GET", "/v1/connect/ca/roots?pem=maybe")).status == 400


async def test_roots_need_no_token_even_with_a_default_of_deny(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1", default_policy_allows=False)
    site.ca.start()
    assert (await site.call("GET", ROOTS)).status == 200
    assert (await site.call("GET", LEAF)).body == "Permission denied"


async def test_blocked_roots_wake_at_rotation_and_at_a_configuration_without_one(
    autojump_clock: MockClock, site: Site
) -> None:
    first = await site.call("GET", ROOTS)
    answers: list[tuple[float, Answered]] = []

    async def watch() -> None:
        index = first.index
        while True:
            answered = await site.call("GET", f"{ROOTS}?index={index}&wait=60s")
            answers.append((trio.current_time(), answered))
            index = answered.index

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(5)
        await site.put(
            CONFIGURATION, configuration(LeafCertTTL="71h", PrivateKeyBits=384, PrivateKeyType="ec")
        )
        await trio.sleep(5)
        await site.put(ROTATE)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    (configured_at, configured), (rotated_at, rotated) = answers
    assert (configured_at, rotated_at) == (5, 10)
    assert configured.body == first.body  # recorded: 1.10.12 does not rotate for a key size alone
    assert configured.index > first.index
    assert rotated.body["ActiveRootID"] != first.body["ActiveRootID"]
    assert len(rotated.body["Roots"]) == 2


async def test_rotation_cross_signs_and_keeps_the_old_root(autojump_clock: MockClock, site: Site) -> None:
    old = (await site.get(ROOTS))["Roots"][0]
    assert await site.put(ROTATE) == {"ActiveRootID": (await site.get(ROOTS))["ActiveRootID"]}
    roots = {root["Active"]: root for root in (await site.get(ROOTS))["Roots"]}
    assert roots[False]["ID"] == old["ID"]
    assert roots[False]["ModifyIndex"] == roots[True]["CreateIndex"] > old["ModifyIndex"]
    assert len(roots[True]["IntermediateCerts"]) == 1
    leaf = await site.get(LEAF)
    assert leaf["CertPEM"].endswith(roots[True]["IntermediateCerts"][0])


@pytest.mark.parametrize("kind", [KeyKind("ec", 384), KeyKind("rsa", 2048)], ids=str)
async def test_rotation_to_another_kind_of_key(autojump_clock: MockClock, site: Site, kind: KeyKind) -> None:
    await site.put(ROTATE, {"PrivateKeyType": kind.type, "PrivateKeyBits": kind.bits})
    active = next(root for root in (await site.get(ROOTS))["Roots"] if root["Active"])
    assert KeyKind(active["PrivateKeyType"], active["PrivateKeyBits"]) == kind
    assert load_key(key_of(await site.get(LEAF))).key_size == 256  # leaf keys are P-256 whatever signs them


async def test_a_configured_kind_is_for_the_next_rotation(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(PrivateKeyType="ec", PrivateKeyBits=521))
    await site.put(ROTATE)
    assert site.trust.active.certificate.public_key().key_size == 521  # type: ignore[union-attr]


async def test_a_kind_that_does_not_exist_is_refused(autojump_clock: MockClock, site: Site) -> None:
    answered = await site.call("PUT", ROTATE, {"PrivateKeyBits": 255})
    assert (answered.status, answered.body) == (400, "EC key length must be one of (224, 256, 384, 521) bits")


async def test_the_configuration_needs_operator_rights(autojump_clock: MockClock) -> None:
    reader = token("reader", Policy(operator=Access.READ))
    site = Wan().site("dc1", default_policy_allows=False, tokens=(reader,))
    site.ca.start()
    assert (await site.call("GET", CONFIGURATION)).status == 403
    assert (await site.call("GET", CONFIGURATION, token="reader")).status == 200
    for path in (CONFIGURATION, ROTATE):
        assert (await site.call("PUT", path, {}, token="reader")).body == "Permission denied"


async def test_malformed_bodies_are_400(autojump_clock: MockClock, site: Site) -> None:
    assert (await site.call("PUT", CONFIGURATION, b"{")).status == 400
    assert (await site.call("PUT", ROTATE, {"Kind": "ec"})).body == (
        'Bad request: Request decode failed: json: unknown field "Kind"'
    )


async def test_a_leaf_has_the_fields_of_the_contract(autojump_clock: MockClock, site: Site) -> None:
    answered = await site.call("GET", LEAF)
    leaf = answered.body
    domain = (await site.get(ROOTS))["TrustDomain"]
    assert leaf["Service"] == "web"
    assert leaf["ServiceURI"] == f"spiffe://{domain}/ns/default/dc/dc1/svc/web"
    assert leaf["SerialNumber"] == "02"
    assert leaf["CreateIndex"] == leaf["ModifyIndex"] == answered.index
    certificate = x509.load_pem_x509_certificate(leaf["CertPEM"].encode())
    assert load_key(key_of(leaf)).public_key() == certificate.public_key()
    assert "X-Consul-Knownleader" not in answered.headers


@pytest.mark.parametrize(
    ("name", "text"), [("", "URI must be either service or agent"), ("a/b", "invalid service name")]
)
async def test_a_name_that_cannot_be_is_500(
    autojump_clock: MockClock, site: Site, name: str, text: str
) -> None:
    answered = await site.call("GET", f"/v1/agent/connect/ca/leaf/{name}")
    assert answered.status == 500
    assert answered.body.startswith(text)


async def test_an_odd_name_is_verbatim_in_the_uri(autojump_clock: MockClock, site: Site) -> None:
    leaf = await site.get("/v1/agent/connect/ca/leaf/We_b.X")
    assert leaf["ServiceURI"].endswith("/svc/We_b.X")
