"""Certificates: their profiles, what is refused, and which chains others accept."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.spiffe import ServiceId, TrustDomain
from datacenter.ca.certificates import (
    RequestRefused,
    Signer,
    certificate_pem,
    check_external_root,
    check_intermediate,
    cross_sign,
    intermediate_request,
    leaf_name,
    make_root,
    serial_hex,
    sign_leaf,
    subject_key_id,
)
from datacenter.ca.keys import KeyKind, SigningKey, generate_key, key_id
from tests.datacenter.mint import HOUR, NOW, TRUST_DOMAIN, YEAR, Primary, Secondary, external_root, refusals

SIGNS_LEAVES = x509.BasicConstraints(ca=True, path_length=0)
KINDS = [KeyKind("ec", 256), KeyKind("ec", 384), KeyKind("ec", 521), KeyKind("rsa", 2048)]


def extensions(certificate: x509.Certificate) -> list[tuple[str, bool]]:
    return [(type(item.value).__name__, item.critical) for item in certificate.extensions]


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def usages(certificate: x509.Certificate) -> set[str]:
    """What its key may be used for, by OpenSSL's names."""
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    granted = {
        "digitalSignature": usage.digital_signature,
        "nonRepudiation": usage.content_commitment,
        "keyEncipherment": usage.key_encipherment,
        "dataEncipherment": usage.data_encipherment,
        "keyAgreement": usage.key_agreement,
        "keyCertSign": usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return {name for name, given in granted.items() if given}


def uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_a_root_has_the_recorded_profile() -> None:
    root = Primary().trust.active.certificate
    assert extensions(root) == [
        ("KeyUsage", True),
        ("BasicConstraints", True),
        ("SubjectKeyIdentifier", False),
        ("AuthorityKeyIdentifier", False),
        ("SubjectAlternativeName", False),
    ]
    assert usages(root) == {"digitalSignature", "keyCertSign", "cRLSign"}
    assert uris(root) == [f"spiffe://{TRUST_DOMAIN}"]
    assert common_name(root) == "pri-first000.consul.ca.11111111.consul"
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints == x509.BasicConstraints(ca=True, path_length=None)
    assert subject_key_id(root) == key_id(root.public_key())
    assert root.not_valid_before_utc == NOW
    assert root.not_valid_after_utc.year == NOW.year + 10


def test_a_root_made_on_a_leap_day_lives_ten_years() -> None:
    leap = datetime(2028, 2, 29, 12, tzinfo=UTC)
    root = make_root(generate_key(), trust_domain=TRUST_DOMAIN, serial=1, uid="x", at=leap)
    assert root.not_valid_after_utc == datetime(2038, 3, 1, 12, tzinfo=UTC)


def test_a_leaf_has_the_recorded_profile() -> None:
    primary = Primary()
    leaf = primary.leaf("web").chain[0]
    assert extensions(leaf) == [
        ("KeyUsage", True),
        ("ExtendedKeyUsage", False),
        ("BasicConstraints", True),
        ("SubjectKeyIdentifier", False),
        ("AuthorityKeyIdentifier", False),
        ("SubjectAlternativeName", False),
    ]
    assert usages(leaf) == {"digitalSignature", "keyEncipherment", "dataEncipherment", "keyAgreement"}
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    assert uris(leaf) == [f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"]
    assert common_name(leaf) == "web.svc.default.11111111.consul"
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 72 * HOUR
    assert len(subject_key_id(leaf)) == 32


def test_an_intermediate_signs_leaves_and_nothing_else() -> None:
    secondary = Secondary(Primary())
    intermediate = secondary.trust.active.signing_certificate
    constraints = intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints == x509.BasicConstraints(ca=True, path_length=0)
    assert usages(intermediate) == {"digitalSignature", "keyCertSign", "cRLSign"}
    assert list(intermediate.subject) == []
    assert intermediate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert uris(intermediate) == [f"spiffe://{TRUST_DOMAIN}"]
    assert intermediate.not_valid_after_utc - intermediate.not_valid_before_utc == YEAR


def test_a_cross_signature_is_the_new_root_under_the_old_for_seven_days() -> None:
    primary = Primary()
    old = primary.trust.active.certificate
    primary.rotate()
    new = primary.trust.active.certificate
    bridge = x509.load_pem_x509_certificate(primary.trust.active.intermediates[0].encode())
    assert bridge.subject == new.subject
    assert bridge.public_key() == new.public_key()
    assert subject_key_id(bridge) == subject_key_id(new)
    assert bridge.not_valid_after_utc - bridge.not_valid_before_utc == timedelta(days=7)
    bridge.verify_directly_issued_by(old)


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("web", "web.svc.default.11111111.consul"),
        ("We_b.X", "webx.svc.default.11111111.consul"),
        ("a-" * 60, f"{'a' * 36}.svc.default.11111111.consul"),
    ],
)
def test_a_leaf_is_named_as_consul_1_10_names_it(service: str, name: str) -> None:
    identity = ServiceId(trust_domain=TRUST_DOMAIN, datacenter="dc1", service=service)
    assert leaf_name(identity) == name


@pytest.mark.parametrize(("serial", "text"), [(13, "0d"), (255, "ff"), (256, "01:00"), (0, "00")])
def test_a_serial_is_printed_in_colon_hex(serial: int, text: str) -> None:
    assert serial_hex(serial) == text


def test_no_leaf_outlives_its_signer() -> None:
    primary = Primary()
    end = primary.trust.active.certificate.not_valid_after_utc
    assert primary.leaf(at=end - HOUR).chain[0].not_valid_after_utc == end
    with pytest.raises(RequestRefused, match="expired"):
        primary.leaf(at=end)


def test_a_signer_never_prints_its_key() -> None:
    assert "key" not in repr(Primary().signer)


def request(
    key: SigningKey,
    *,
    name: str = "sec-abc.consul.ca.11111111.consul",
    uri: str | None = f"spiffe://{TRUST_DOMAIN}",
    constraints: x509.BasicConstraints | None = SIGNS_LEAVES,
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"uri": "spiffe://99999999-2222-3333-4444-555555555555.consul"}, "trust domain"),
        ({"uri": f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc2/svc/web"}, "trust domain"),
        ({"uri": "not a uri"}, "trust domain"),
        ({"uri": None}, "trust domain"),
        ({"constraints": None}, "path length"),
        ({"constraints": x509.BasicConstraints(ca=True, path_length=1)}, "path length"),
        ({"constraints": x509.BasicConstraints(ca=False, path_length=None)}, "path length"),
        ({"name": "web.svc.default.11111111.consul"}, "name"),
    ],
)
def test_a_request_for_anything_else_is_refused(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason):
        Primary().sign(request(generate_key(), **changed))  # type: ignore[arg-type]


def test_a_request_of_an_older_secondary_has_a_name() -> None:
    signed = Primary().sign(request(generate_key()))
    assert common_name(signed) == "sec-abc.consul.ca.11111111.consul"
    assert not signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_a_request_for_two_names_is_refused() -> None:
    names = [x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}"), x509.DNSName("db")]
    doubled = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sec-a.consul.ca.1.consul")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    with pytest.raises(RequestRefused, match="trust domain"):
        Primary().sign(doubled)


def test_a_request_with_a_weak_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP192R1())
    with pytest.raises(RequestRefused, match="ec' or 'rsa"):
        Primary().sign(request(key))


def test_a_request_signed_by_another_key_is_refused() -> None:
    honest = intermediate_request(generate_key(), trust_domain=TRUST_DOMAIN)
    der = bytearray(honest.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(RequestRefused, match="signature"):
        Primary().sign(x509.load_der_x509_csr(bytes(der)))


def test_an_external_root_is_checked() -> None:
    key = generate_key()
    check_external_root(external_root(key), key, NOW)
    for root, reason in [
        (external_root(generate_key()), "does not belong"),
        (external_root(key, ca=False), "not a CA"),
        (external_root(key, constraints=False), "not a CA"),
        (external_root(key, path_length=0), "path length"),
        (external_root(key, issuer_key=generate_key()), "not self-signed"),
        (external_root(key, begin=NOW + HOUR), "not valid now"),
        (external_root(key, begin=NOW - 2 * YEAR), "not valid now"),
    ]:
        with pytest.raises(RequestRefused, match=reason):
            check_external_root(root, key, NOW)


def test_an_external_root_without_key_ids_can_be_cross_signed_and_sign() -> None:
    key, old = generate_key(), Primary().signer
    root = external_root(key)
    bridge = cross_sign(root, old, serial=9, at=NOW)
    assert subject_key_id(bridge) == subject_key_id(root) == key_id(key.public_key())
    identity = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service="web")
    leaf = sign_leaf(
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        Signer(certificate=root, key=key),
        identity=identity,
        serial=3,
        at=NOW,
        ttl=HOUR,
    )
    leaf.verify_directly_issued_by(root)
    leaf.verify_directly_issued_by(bridge)


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise([*KINDS, KINDS[0]])), ids=str)
def test_old_and_new_leaves_verify_against_old_and_new_roots(before: KeyKind, after: KeyKind) -> None:
    """Every leaf a peer may present, against every trust set a peer may hold, by three verifiers."""
    primary = Primary(before)
    secondary = Secondary(primary)
    old_leaves = [primary.leaf(), secondary.leaf("db")]
    old_roots = primary.trust.roots
    primary.rotate(after)
    secondary.follow()
    new_leaves = [primary.leaf(), secondary.leaf("db")]
    assert [len(leaf.chain) for leaf in old_leaves + new_leaves] == [1, 2, 2, 3]
    only_new = tuple(root for root in primary.trust.roots if root.active)
    for leaf in old_leaves + new_leaves:
        assert refusals(leaf, primary.trust.roots) == {}
    for leaf in old_leaves:
        assert refusals(leaf, old_roots) == {}
        assert "ssl" in refusals(leaf, only_new)
    for leaf in new_leaves:
        assert refusals(leaf, old_roots) == {}
        assert refusals(leaf, only_new) == {}


def test_a_peer_that_missed_two_rotations_is_cut_off_as_with_consul() -> None:
    primary = Primary()
    first = primary.trust.roots
    primary.rotate()
    second = (primary.trust.active,)
    primary.rotate()
    leaf = primary.leaf()
    assert refusals(leaf, second) == {}
    assert refusals(leaf, first) != {}


def test_a_p224_root_signs_for_those_verifiers_that_know_the_curve() -> None:
    """cryptography's verifier knows only the Web PKI's curves, so it is not asked."""
    primary = Primary(KeyKind("ec", 224))
    assert set(refusals(primary.leaf(), primary.trust.roots)) <= {"cryptography"}


def test_certificates_end_in_a_newline() -> None:
    assert certificate_pem(Primary().trust.active.certificate).endswith("-----END CERTIFICATE-----\n")


def test_what_a_primary_sends_back_is_checked() -> None:
    primary, other, key = Primary(), Primary(), generate_key()
    root = primary.trust.active.certificate
    csr = intermediate_request(key, trust_domain=TRUST_DOMAIN)
    honest = primary.sign(csr)
    check_intermediate(honest, key, root, TRUST_DOMAIN)
    for certificate, its_key, domain, reason in [
        (honest, generate_key(), TRUST_DOMAIN, "not for our key"),
        (other.sign(csr), key, TRUST_DOMAIN, "not signed by the active root"),
        (honest, key, TrustDomain("other.consul"), "not for the trust domain other.consul"),
        (_without_limits(primary, key), key, TRUST_DOMAIN, "not a CA of path length 0"),
    ]:
        with pytest.raises(RequestRefused, match=reason):
            check_intermediate(certificate, its_key, root, domain)


def _without_limits(primary: Primary, key: SigningKey) -> x509.Certificate:
    """The secondary's key as if it were a root of its own: any number of authorities below it."""
    root = make_root(key, trust_domain=TRUST_DOMAIN, serial=9, uid="free", at=NOW)
    return cross_sign(root, primary.signer, serial=10, at=NOW)
