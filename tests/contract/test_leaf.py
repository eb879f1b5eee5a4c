"""Leaves: what a sidecar proves before it shows one, and how it waits for the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.contract.chains import (
    active_root,
    certificates,
    key_id,
    roots_of,
    signed_by,
    signer_id,
    trusted,
    uris,
)
from tests.contract.client import Api
from tests.contract.federation import Federation

LEAF = "/v1/agent/connect/ca/leaf"
ROOTS = "/v1/agent/connect/ca/roots"


def test_a_leaf_answer_has_every_field_a_client_reads(federation: Federation, name: str) -> None:
    for api in federation:
        answer = api.get(f"{LEAF}/{name}").json
        (leaf, *_) = certificates(answer["CertPEM"])
        domain = api.get(ROOTS).json["TrustDomain"]
        assert set(answer) == {
            "SerialNumber",
            "CertPEM",
            "PrivateKeyPEM",
            "Service",
            "ServiceURI",
            "ValidAfter",
            "ValidBefore",
            "CreateIndex",
            "ModifyIndex",
        }
        assert answer["Service"] == name
        assert answer["ServiceURI"] == f"spiffe://{domain}/ns/default/dc/{api.name}/svc/{name}"
        assert uris(leaf) == [answer["ServiceURI"]]
        assert int(answer["SerialNumber"].replace(":", ""), 16) == leaf.serial_number
        assert answer["ValidAfter"] == f"{leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        assert answer["ValidBefore"] == f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"


def test_a_leaf_is_valid_from_a_minute_ago_for_the_leaf_ttl(federation: Federation, name: str) -> None:
    for api in federation:
        (leaf, *_) = certificates(api.get(f"{LEAF}/{name}").json["CertPEM"])
        age = datetime.now(UTC) - leaf.not_valid_before_utc
        assert timedelta(seconds=59) <= age < timedelta(seconds=70)
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=72)


def test_a_leaf_may_be_client_and_server_and_nothing_else(federation: Federation, name: str) -> None:
    for api in federation:
        (leaf, *_) = certificates(api.get(f"{LEAF}/{name}").json["CertPEM"])
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
        assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
        assert (constraints.critical, constraints.value.ca) == (True, False)
        assert usage.critical
        assert usage.value.digital_signature
        assert usage.value.key_encipherment
        assert usage.value.data_encipherment
        assert usage.value.key_agreement
        assert not usage.value.key_cert_sign
        assert len(bytes.fromhex(key_id(leaf).replace(":", ""))) == 32


def test_the_key_fits_and_is_p256_in_sec1(federation: Federation, name: str) -> None:
    for api in federation:
        answer = api.get(f"{LEAF}/{name}").json
        assert answer["PrivateKeyPEM"].startswith("-----BEGIN EC PRIVATE KEY-----\n")
        key = load_pem_private_key(answer["PrivateKeyPEM"].encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert key.public_key() == certificates(answer["CertPEM"])[0].public_key()


def test_a_leaf_travels_with_the_intermediates_of_the_active_root(federation: Federation, name: str) -> None:
    for api, extras in zip(federation, (0, 1), strict=True):
        roots = api.get(ROOTS).json
        root, bridges = active_root(roots), int(len(roots["Roots"]) > 1)  # one, whoever rotated before us
        (leaf, *extra) = certificates(api.get(f"{LEAF}/{name}").json["CertPEM"])
        listed = [certificates(pem)[0] for pem in root["IntermediateCerts"] or []]
        assert extra == listed
        assert len(extra) == extras + bridges
        signer = extra[-1] if extra else certificates(root["RootCert"])[0]
        assert signed_by(leaf, signer)
        assert signer_id(leaf) == key_id(signer) == root["SigningKeyID"]


def test_a_leaf_of_either_datacenter_verifies_in_both(
    federation: Federation, name: str, tmp_path: Path
) -> None:
    for issuer in federation:
        leaf = issuer.get(f"{LEAF}/{name}").json["CertPEM"]
        for verifier in federation:
            assert trusted(leaf, roots_of(verifier.get(ROOTS).json), tmp_path)


def test_the_same_leaf_is_served_until_it_is_time(federation: Federation, name: str) -> None:
    for api in federation:
        first, second = api.get(f"{LEAF}/{name}"), api.get(f"{LEAF}/{name}")
        assert first.json == second.json
        assert first.index == second.index
        assert first.headers["x-cache"] == "MISS"
        assert second.headers["x-cache"] in {"HIT", "MISS"}
        assert "x-consul-knownleader" not in second.headers


def test_two_services_get_two_keys(dc1: Api, name: str) -> None:
    one, other = (dc1.get(f"{LEAF}/{name}{letter}").json for letter in "ab")
    assert one["PrivateKeyPEM"] != other["PrivateKeyPEM"]
    assert one["SerialNumber"] != other["SerialNumber"]


def test_an_unchanged_leaf_is_waited_for_until_the_time_is_up(federation: Federation, name: str) -> None:
    firsts = [api.get(f"{LEAF}/{name}") for api in federation]
    held = [
        api.hold(f"{LEAF}/{name}?index={first.index}&wait=1s")
        for api, first in zip(federation, firsts, strict=True)
    ]
    for first, pending in zip(firsts, held, strict=True):
        answer = pending.result()
        assert answer.json == first.json
        assert answer.index == first.index
        assert 0.9 <= answer.seconds < 5


def test_the_primary_hands_out_a_leaf_of_the_secondary_when_asked(federation: Federation, name: str) -> None:
    answer = federation.dc1.get(f"{LEAF}/{name}?dc=dc2").json
    (leaf, *_, intermediate) = certificates(answer["CertPEM"])
    assert answer["ServiceURI"].endswith(f"/dc/dc2/svc/{name}")
    assert key_id(intermediate) == active_root(federation.dc2.get(ROOTS).json)["SigningKeyID"]
    assert signed_by(leaf, intermediate)


@pytest.mark.parametrize("spelling", ["We_b.X", "web-1", "WEB"])
def test_the_name_is_taken_into_the_uri_as_it_is(dc1: Api, spelling: str) -> None:
    answer = dc1.get(f"{LEAF}/{spelling}").json
    assert answer["ServiceURI"].endswith(f"/svc/{spelling}")
    assert uris(certificates(answer["CertPEM"])[0]) == [answer["ServiceURI"]]
