"""A caller's certificate, signed by a root of ours whatever it says: any bytes as what is signed.

Consul signs what it has checked, so that most of these are not to be had; but a signing key may be stolen,
and another CA may have mistakes. Our reader refuses by name, or reads one identity, and leaves nothing in
OpenSSL's queue of errors, where an innocent connection would find it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL._util import lib

from certs.bundle import BundleRejected, Root, TrustBundle, fingerprint_of, parse_roots
from certs.chain import ChainBroken, reach
from certs.contexts import build_contexts
from certs.credentials import CredentialsRejected, prove
from certs.identity import NoIdentity, service_of
from certs.leaf import LeafRejected, parse_leaf
from certs.peer import PeerRejected, verify_peer
from certs.rejection import UNREADABLE
from certs.spiffe import TrustDomain
from tests.certs.authority import key_pem, pem
from tests.certs.signing import signed
from tests.fuzz.mutators import der
from tests.fuzz.target import Target

_NOW = datetime(2031, 1, 1, tzinfo=UTC)
_DOMAIN = TrustDomain("11111111-2222-3333-4444-555555555555.consul")
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fuzz root")])
_ROOT_KEY_ID = b"\x01" * 20
_ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
# Its public half is the generator of the curve: what is signed is the same in every run, and it is no secret.
_LEAF_KEY = ec.derive_private_key(1, ec.SECP256R1())


def fuzz_one(data: bytes) -> None:
    """Show it as a caller's, and take it as our own."""
    certificate = signed(data, _ROOT_KEY)
    with suppress(PeerRejected):
        peer = verify_peer([certificate, _ROOT_DER], _BUNDLE, _NOW)
        assert peer.id.trust_domain == _DOMAIN
        assert peer.not_after >= _NOW  # RFC 5280 §4.1.2.5: the last moment is within
    try:
        parsed = x509.load_der_x509_certificate(certificate)
    except UNREADABLE:
        return
    with suppress(NoIdentity):
        assert service_of(parsed) == service_of(parsed)
    with suppress(ChainBroken):
        path = [step.public_bytes(Encoding.DER) for step in reach(parsed, [], _BUNDLE, _NOW)]
        assert path == [certificate, _ROOT_DER]
    assert not lib.ERR_peek_error(), "an error is left in OpenSSL's queue"
    _as_our_own(parsed)
    _as_a_root(parsed)


def _as_our_own(certificate: x509.Certificate) -> None:
    with suppress(LeafRejected, CredentialsRejected):
        leaf = parse_leaf(pem(certificate), key_pem(_LEAF_KEY))
        credentials = prove(leaf, _BUNDLE, service="web", datacenter="dc1", at=_NOW)
        build_contexts(credentials, 1)
    assert not lib.ERR_peek_error(), "an error is left in OpenSSL's queue"


def _as_a_root(certificate: x509.Certificate) -> None:
    text = pem(certificate)
    with suppress(BundleRejected, ChainBroken):
        answer = {"TrustDomain": str(_DOMAIN), "Roots": [{"ID": "1", "RootCert": text, "Active": True}]}
        reach(_PLAIN, [certificate], parse_roots(answer), _NOW)
    assert not lib.ERR_peek_error(), "an error is left in OpenSSL's queue"


def _root() -> x509.Certificate:
    builder = x509.CertificateBuilder(_NAME, _NAME, _ROOT_KEY.public_key(), 1, _NOW, _NOW + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectKeyIdentifier(_ROOT_KEY_ID), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return builder.sign(_ROOT_KEY, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        *(True, False, False, False, False, signs, signs), encipher_only=False, decipher_only=False
    )


def _leaf(*extensions: tuple[x509.ExtensionType, bool], name: str = "web", serial: int = 13) -> bytes:
    """What is signed of a leaf with these extensions."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateBuilder(
        _NAME, subject, _LEAF_KEY.public_key(), serial, _NOW, _NOW + timedelta(days=3)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(_ROOT_KEY, hashes.SHA256()).tbs_certificate_bytes


def _names(*names: x509.GeneralName) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName(names), False


def _uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def _seeds() -> tuple[bytes, ...]:
    web = _uri(f"spiffe://{_DOMAIN}/ns/default/dc/dc1/svc/web")
    both = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False)
    plain = (x509.BasicConstraints(ca=False, path_length=None), True)
    usage = (_usage(signs=False), True)
    issuer = (x509.AuthorityKeyIdentifier(_ROOT_KEY_ID, None, None), False)
    unknown = (x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x30\x80\0"), True)
    constrained = x509.NameConstraints(permitted_subtrees=[x509.DNSName("consul")], excluded_subtrees=None)
    return (
        _leaf(_names(web), both, plain, usage, issuer),
        _leaf((x509.SubjectAlternativeName([web]), True), both, name="", serial=2**158),
        _leaf(_names(web, web)),
        _leaf(_names(x509.DNSName("web"), x509.OtherName(ObjectIdentifier("1.2.3"), b"\x05\0"), web)),
        _leaf(_names(_uri("spiffe://other.consul/ns/default/dc/dc1/svc/web"))),
        _leaf(_names(_uri(f"spiffe://{_DOMAIN}"))),
        _leaf(_names(_uri("https://example.org/\0"))),
        _leaf(_names(web), (x509.BasicConstraints(ca=True, path_length=0), True)),
        _leaf(_names(web), (_usage(signs=True), True)),
        _leaf(_names(web), unknown),
        _leaf(_names(web), (constrained, True)),
        _leaf(),
        b"",
        b"\x30\x80",
    )


_ROOT_CERTIFICATE = _root()
_ROOT_DER = _ROOT_CERTIFICATE.public_bytes(Encoding.DER)
_BUNDLE = TrustBundle(
    trust_domain=_DOMAIN,
    roots=(
        Root(
            id="1",
            name="fuzz",
            serial=1,
            certificate=_ROOT_CERTIFICATE,
            pem=pem(_ROOT_CERTIFICATE),
            fingerprint=fingerprint_of(_ROOT_DER),
            signing_key_id="",
            active=True,
            not_before=_ROOT_CERTIFICATE.not_valid_before_utc,
            not_after=_ROOT_CERTIFICATE.not_valid_after_utc,
        ),
    ),
)

_SEEDS = _seeds()
_PLAIN = x509.load_der_x509_certificate(signed(_SEEDS[0], _ROOT_KEY))

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=_SEEDS,
    words=(
        *(b"spiffe://", b"/ns/default/dc/dc1/svc/", _DOMAIN.name.encode(), b"\x86", b"\x82", b"\x30\x80"),
        *(bytes.fromhex("0603551d11"), bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")),
        *(bytes.fromhex("0603551d23"), bytes.fromhex("0603551d25"), bytes.fromhex("0101ff")),
        *(b"310101000000Z", b"99991231235959Z", b"\x18\x0f", b"\x17\x0d"),
    ),
    mutate=der,
    longest=2048,
)
