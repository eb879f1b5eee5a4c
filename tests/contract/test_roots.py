"""The trust bundle: one trust domain and one active root in both datacenters, a signer of its own in each."""

from __future__ import annotations

import hashlib
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.contract.chains import active_root, certificates, key_id, signed_by, signer_id, uris
from tests.contract.client import Api
from tests.contract.federation import Federation

ROOTS = "/v1/agent/connect/ca/roots"
ROOT_FIELDS = {
    "ID": str,
    "Name": str,
    "SerialNumber": int,
    "SigningKeyID": str,
    "ExternalTrustDomain": str,
    "NotBefore": str,
    "NotAfter": str,
    "RootCert": str,
    "Active": bool,
    "PrivateKeyType": str,
    "PrivateKeyBits": int,
    "CreateIndex": int,
    "ModifyIndex": int,
}


@pytest.mark.parametrize("path", [ROOTS, "/v1/connect/ca/roots"])
def test_both_datacenters_trust_one_root_and_sign_with_keys_of_their_own(
    federation: Federation, path: str
) -> None:
    primary, secondary = (api.get(path).json for api in federation)
    assert primary["TrustDomain"] == secondary["TrustDomain"]
    assert primary["ActiveRootID"] == secondary["ActiveRootID"]
    ours, theirs = active_root(primary), active_root(secondary)
    assert ours["RootCert"] == theirs["RootCert"]
    assert ours["SigningKeyID"] != theirs["SigningKeyID"]


def test_a_roots_answer_has_every_field_a_client_reads(federation: Federation) -> None:
    for api in federation:
        answer = api.get(ROOTS).json
        assert set(answer) == {"ActiveRootID", "TrustDomain", "Roots"}
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.consul", answer["TrustDomain"])
        for root in answer["Roots"]:
            assert {name: type(root[name]) for name in ROOT_FIELDS} == ROOT_FIELDS
            assert set(root) == {*ROOT_FIELDS, "IntermediateCerts"}
            assert f"{root['ExternalTrustDomain']}.consul" == answer["TrustDomain"]
            assert (root["PrivateKeyType"], root["PrivateKeyBits"]) == ("ec", 256)


def test_the_fields_of_a_root_say_what_its_certificate_says(dc1: Api) -> None:
    answer = dc1.get(ROOTS).json
    root = active_root(answer)
    (certificate,) = certificates(root["RootCert"])
    assert root["RootCert"].endswith("\n")
    assert root["ID"] == hashlib.sha1(certificate.public_bytes(Encoding.DER)).digest().hex(":")
    assert root["SerialNumber"] == certificate.serial_number
    assert root["SigningKeyID"] == key_id(certificate) == signer_id(certificate)
    assert root["NotBefore"] == f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert root["NotAfter"] == f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert uris(certificate) == [f"spiffe://{answer['TrustDomain']}"]


def test_a_root_and_an_intermediate_may_sign_and_say_so(dc2: Api) -> None:
    root = active_root(dc2.get(ROOTS).json)
    issuer = certificates(root["RootCert"])[0]
    intermediate = certificates(root["IntermediateCerts"][-1])[0]
    assert signed_by(intermediate, issuer)
    assert root["SigningKeyID"] == key_id(intermediate)
    assert uris(intermediate) == uris(issuer)
    for certificate, path_length in ((issuer, None), (intermediate, 0)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert (constraints.critical, constraints.value.ca) == (True, True)
        assert constraints.value.path_length == path_length
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert usage.value.digital_signature
        assert not usage.value.key_encipherment


def test_the_roots_come_as_pem_too(federation: Federation) -> None:
    for api in federation:
        answer = api.get("/v1/connect/ca/roots?pem=true")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/pem-certificate-chain"
        # Each root with its intermediates behind it: in a secondary this is more than the trust bundle.
        listed = [
            certificate
            for root in api.get(ROOTS).json["Roots"]
            for pem in [root["RootCert"], *(root["IntermediateCerts"] or [])]
            for certificate in certificates(pem)
        ]
        assert certificates(answer.text) == listed


def test_an_unchanged_bundle_is_waited_for_until_the_time_is_up(federation: Federation) -> None:
    held = [
        (api.get(ROOTS).index, api.hold(f"{ROOTS}?index={api.get(ROOTS).index}&wait=1s"))
        for api in federation
    ]
    for index, pending in held:
        answer = pending.result()
        assert answer.json["Roots"]
        assert answer.index == index
        assert 0.9 <= answer.seconds < 5


def test_a_bundle_says_how_old_it_is(dc1: Api) -> None:
    answer = dc1.get(ROOTS)
    assert answer.headers["x-cache"] in {"HIT", "MISS"}
    assert answer.headers["x-consul-knownleader"] == "true"
    assert answer.headers["x-consul-lastcontact"] == "0"
