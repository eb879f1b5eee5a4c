"""Roots, leaves, configuration and rotation, as a client of one datacenter sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock

from datacenter.keys import KeyKind, generate_key, key_pem, load_key
from datacenter.settings import Access, Policy
from datacenter.store import Store
from tests.datacenter.mint import HOUR
from tests.datacenter.sites import Answered, Site, Wan, now, token
from tests.datacenter.test_authority import external

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
async def site() -> Site:
    site = Wan().site("dc1")
    site.ca.start()
    return site


def expiry(leaf: dict[str, str]) -> datetime:
    return datetime.fromisoformat(leaf["ValidBefore"])


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


async def test_a_new_private_key_rotates_and_the_same_key_again_does_not(
    autojump_clock: MockClock, site: Site
) -> None:
    body = configuration(PrivateKey=key_pem(generate_key()))
    for _ in range(2):
        await site.put(CONFIGURATION, body)
    assert len(site.trust.roots) == 2
    shown = await site.get(CONFIGURATION)
    assert "PrivateKey" not in shown["Config"]
    await site.put(CONFIGURATION, shown)  # what was read can be written back
    assert len(site.trust.roots) == 2


async def test_an_external_root_is_taken_over_and_left_again(autojump_clock: MockClock, site: Site) -> None:
    key = generate_key(KeyKind("ec", 384))
    root = external(key)
    pem = root.public_bytes(serialization.Encoding.PEM).decode().rstrip("\n")
    await site.put(CONFIGURATION, configuration(PrivateKey=key_pem(key), RootCert=pem))
    assert site.trust.active.certificate == root
    leaf = x509.load_pem_x509_certificate((await site.get(LEAF))["CertPEM"].encode())
    leaf.verify_directly_issued_by(root)
    await site.put(CONFIGURATION, configuration(RootCert=pem))
    await site.put(ROTATE)
    assert len(site.trust.roots) == 3


async def test_without_cross_signing_the_new_root_stands_alone(autojump_clock: MockClock, site: Site) -> None:
    body = configuration(PrivateKey=key_pem(generate_key()))
    await site.put(CONFIGURATION, {**body, "ForceWithoutCrossSigning": True})
    assert site.trust.active.intermediates == ()
    assert (await site.get(CONFIGURATION))["ForceWithoutCrossSigning"] is True


def a_key_and_anothers_root() -> dict[str, object]:
    root = external(generate_key()).public_bytes(serialization.Encoding.PEM).decode()
    return configuration(PrivateKey=key_pem(generate_key()), RootCert=root)


REFUSED = "error configuring provider: "


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Provider": "nope", "Config": {}}, 'could not initialize provider: unknown CA provider "nope"'),
        ({"Provider": "vault"}, "could not initialize provider: CA provider 'vault' needs a real Consul"),
        (configuration(LeafCertTTL="30m"), f"{REFUSED}leaf cert TTL must be greater or equal than 1h0m0s"),
        (configuration(LeafCertTTL="9000h"), f"{REFUSED}leaf cert TTL must be less than 8760h0m0s"),
        (
            configuration(LeafCertTTL="72h", IntermediateCertTTL="100h"),
            f"{REFUSED}Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=216h0m0s).",
        ),
        (configuration(LeafCertTTL="soon"), f'{REFUSED}time: invalid duration "soon"'),
        (configuration(LeafCertTTL=True), f"{REFUSED}LeafCertTTL must be a duration"),
        (configuration(LeafCertTTL="0s", SkipValidate=True), f"{REFUSED}LeafCertTTL must be greater than 0"),
        (configuration(PrivateKeyType="dsa"), f"{REFUSED}private key type must be either 'ec' or 'rsa'"),
        (configuration(PrivateKeyBits="x"), f"{REFUSED}PrivateKeyType must be a string"),
        (configuration(PrivateKey="x"), f"{REFUSED}the private key is not an unencrypted PEM key"),
        (configuration(RootCert="x"), f"{REFUSED}RootCert is not a PEM certificate"),
        (
            lambda: configuration(
                RootCert=external(generate_key()).public_bytes(serialization.Encoding.PEM).decode()
            ),
            f"{REFUSED}RootCert needs its PrivateKey",
        ),
        (a_key_and_anothers_root, f"{REFUSED}the root certificate does not belong to the private key"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused_and_changes_nothing(
    autojump_clock: MockClock,
    site: Site,
    body: dict[str, object] | Callable[[], dict[str, object]],
    text: str,
) -> None:
    before = (await site.get(CONFIGURATION), await site.get(ROOTS))
    answered = await site.call("PUT", CONFIGURATION, body() if callable(body) else body)
    assert answered.status == 500
    assert answered.body.startswith(text)
    assert (await site.get(CONFIGURATION), await site.get(ROOTS)) == before


async def test_skip_validate_allows_any_life(autojump_clock: MockClock, site: Site) -> None:
    config = {"LeafCertTTL": "11m", "IntermediateCertTTL": "8760h", "SkipValidate": True}
    await site.put(CONFIGURATION, configuration(**config))
    assert (await site.get(CONFIGURATION))["Config"] == config
    leaf = await site.get(LEAF)
    assert expiry(leaf) - datetime.fromisoformat(leaf["ValidAfter"]) == timedelta(minutes=11)


async def test_durations_may_be_nanoseconds(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL=2 * 3600 * 10**9))
    assert site.ca.config.leaf_ttl == 2 * HOUR


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
        'Request decode failed: json: unknown field "Kind"'
    )


async def test_retired_roots_are_pruned_after_twice_the_leafs_life(
    autojump_clock: MockClock, site: Site
) -> None:
    await site.put(ROTATE)
    await trio.sleep(144 * 3600)
    site.ca.prune()
    assert len(site.trust.roots) == 2
    await trio.sleep(1)
    site.ca.prune()
    assert len(site.trust.roots) == 1


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


async def test_a_leaf_is_kept_by_token_and_service(autojump_clock: MockClock, site: Site) -> None:
    first = await site.call("GET", LEAF)
    await trio.sleep(49)
    again = await site.call("GET", LEAF)
    assert (first.headers["X-Cache"], again.headers["X-Cache"], again.headers["Age"]) == ("MISS", "HIT", "49")
    assert again.body == first.body
    other = await site.call("GET", LEAF, token="other")
    assert key_of(other.body) != key_of(first.body)
    assert other.headers["X-Cache"] == "MISS"


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


async def test_a_blocked_leaf_runs_to_its_timeout_unchanged(autojump_clock: MockClock, site: Site) -> None:
    first = await site.call("GET", LEAF)
    blocked = await site.call("GET", f"{LEAF}?index={first.index}&wait=2s")
    assert 2 <= trio.current_time() <= 2 + 2 / 16
    assert (blocked.body, blocked.index) == (first.body, first.index)
    assert blocked.headers["X-Cache"] == "MISS"


async def test_a_blocked_leaf_is_renewed_within_its_share_of_life(
    autojump_clock: MockClock, site: Site
) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="11m", SkipValidate=True))
    answered = await site.call("GET", LEAF)
    moments = []
    for _ in range(12):
        begun = trio.current_time()
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=10m")
        moments.append(trio.current_time() - begun)
    assert all(336 <= moment <= 534 for moment in moments)  # contract §3.2, computed for 11 minutes
    assert max(moments) - min(moments) > 60


async def test_an_unblocked_leaf_is_renewed_when_its_time_has_come(
    autojump_clock: MockClock, site: Site
) -> None:
    first = await site.get(LEAF)
    await trio.sleep(0.59 * 72 * 3600)
    assert await site.get(LEAF) == first
    await trio.sleep(0.31 * 72 * 3600)
    assert await site.get(LEAF) != first


async def test_short_lived_leaves_are_born_valid_and_do_not_spin(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1", leaf_ttl=60.0)
    site.ca.start()
    answered = await site.call("GET", LEAF)
    rounds = 0
    while trio.current_time() < 600:
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=10m")
        assert expiry(answered.body) > now()
        rounds += 1
    assert rounds < 25
    assert (await site.get(CONFIGURATION))["Config"]["SkipValidate"] is True


async def test_after_a_rotation_who_waits_gets_the_leaf_with_jitter_and_who_asks_at_once(
    autojump_clock: MockClock, site: Site
) -> None:
    first = {name: await site.call("GET", LEAF, token=name) for name in "abcdefgh"}
    woken: dict[str, float] = {}

    async def watch(name: str) -> None:
        answered = await site.call("GET", f"{LEAF}?index={first[name].index}&wait=60s", token=name)
        assert answered.body["SerialNumber"] != first[name].body["SerialNumber"]
        woken[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        for name in first:
            nursery.start_soon(watch, name)
        await trio.sleep(10)
        await site.put(ROTATE)
        unblocked = await site.call("GET", LEAF, token="a")
        assert unblocked.body["SerialNumber"] != first["a"].body["SerialNumber"]
    assert woken.pop("a") == 10  # the same cache entry: the waiter sees what the other was given
    assert all(10 < moment <= 40 for moment in woken.values())
    assert max(woken.values()) - min(woken.values()) > 5


async def test_a_waiter_that_comes_back_does_not_start_its_jitter_again(
    autojump_clock: MockClock, site: Site
) -> None:
    answered = await site.call("GET", LEAF)
    first = answered.body
    await site.put(ROTATE)
    while answered.body == first:
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=1s")
    assert trio.current_time() <= 32


async def test_no_jitter_when_it_is_set_to_nothing(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1", leaf_rotation_jitter=0.0)
    site.ca.start()
    first = await site.call("GET", LEAF)
    await site.put(ROTATE)
    await site.call("GET", f"{LEAF}?index={first.index}&wait=60s")
    assert trio.current_time() == 0


async def test_leaves_nobody_asks_for_are_forgotten(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="8760h", IntermediateCertTTL="30000h"))
    first = await site.get(LEAF)
    await trio.sleep(73 * 3600)
    await site.get("/v1/agent/connect/ca/leaf/db")
    assert await site.get(LEAF) != first


async def test_an_index_goes_on_after_a_restart(autojump_clock: MockClock, site: Site) -> None:
    """A client that comes back with its old index gets the new leaf at once, not after its wait."""
    before = await site.call("GET", LEAF)
    again = Wan().site("dc1", store=site.dc.store)
    again.ca.start()
    after = await again.call("GET", f"{LEAF}?index={before.index}&wait=60s")
    assert after.index > before.index
    assert trio.current_time() == 0


async def test_a_restart_keeps_roots_and_configuration(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="70h"))
    before = (await site.get(ROOTS), await site.get(CONFIGURATION))
    again = Wan().site("dc1", store=site.dc.store)
    again.ca.start()
    assert (await again.get(ROOTS), await again.get(CONFIGURATION)) == before


async def test_a_changed_setting_overrides_the_configuration_once(
    autojump_clock: MockClock, site: Site
) -> None:
    again = Wan().site("dc1", store=site.dc.store, leaf_ttl=3600.0)
    again.ca.start()
    assert (await again.get(CONFIGURATION))["Config"]["LeafCertTTL"] == "1h"


async def test_a_secondary_started_as_primary_makes_a_root_of_its_own(autojump_clock: MockClock) -> None:
    """Its primary is lost for good: same trust domain, nothing to cross-sign with."""
    from tests.datacenter.mint import Primary, Secondary

    theirs = Secondary(Primary())
    wan = Wan()
    site = wan.site("dc2", primary="dc1")
    site.ca.start()
    site.ca.install(theirs.trust, theirs.key)
    promoted = wan.site("dc2", primary="dc2", store=site.dc.store)
    promoted.ca.start()
    assert promoted.trust.trust_domain == theirs.trust.trust_domain
    assert promoted.trust.active.intermediates == ()
    assert len(promoted.trust.roots) == 2
    await promoted.put(ROTATE)
    assert len(promoted.trust.active.intermediates) == 1


async def test_before_there_is_a_root_everything_says_so(autojump_clock: MockClock) -> None:
    site = Wan().site("dc2", primary="dc1")
    site.ca.start()
    site.ca.prune()
    for path in (ROOTS, LEAF, "/v1/connect/ca/roots", "/v1/connect/ca/roots?pem=true"):
        answered = await site.call("GET", path)
        assert (answered.status, answered.body) == (500, "CA has not finished initializing")
    assert (await site.call("GET", "/v1/connect/ca/roots")).headers["X-Consul-Index"] == "1"


async def test_a_half_written_change_is_no_change(
    autojump_clock: MockClock, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the roots and their key: the store comes back with neither."""
    before = (await site.get(ROOTS), site.ca.signer().key.public_key())

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Store, "put_private", die)
    with pytest.raises(Killed):
        site.ca.rotate(generate_key())
    monkeypatch.undo()
    assert (await site.get(ROOTS), site.ca.signer().key.public_key()) == before
    leaf = x509.load_pem_x509_certificate((await site.get(LEAF))["CertPEM"].encode())
    leaf.verify_directly_issued_by(site.trust.active.certificate)


async def test_rotation_survives_an_expired_root(autojump_clock: MockClock, site: Site) -> None:
    await trio.sleep(11 * 365 * 24 * 3600)
    assert (await site.call("GET", LEAF)).body == "error signing: the signing certificate has expired"
    await site.put(ROTATE)
    assert site.trust.active.intermediates == ()
    await site.get(LEAF)
