"""Certificates that are signed, and that cryptography or OpenSSL cannot read: refused by name wherever.

Each kind was found by the fuzz target `certificates`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import pytest
from cryptography import x509
from OpenSSL import SSL

from certs.bundle import BundleReason, BundleRejected, parse_roots
from certs.chain import ChainBroken, ChainReason, reach
from certs.contexts import build_contexts
from certs.credentials import CredentialsReason, CredentialsRejected, prove
from certs.leaf import LeafReason, LeafRejected, parse_leaf
from certs.peer import PeerReason, PeerRejected, verify_peer
from tests.certs.authority import Issuer, der, roots_answer, service_uri
from tests.certs.fitting import AT, bundle, credentials, handshake, root
from tests.certs.signing import changed

_URI = service_uri("web", "dc1").encode()
_SIZE = bytes([len(_URI)])
_CURVE = bytes.fromhex("06082a8648ce3d0301")


@dataclass(frozen=True)
class Flaw:
    """Other bytes in place of some."""

    old: bytes
    new: bytes

    def of(self, certificate: x509.Certificate, issuer: Issuer) -> bytes:
        return changed(certificate, issuer.key, self.old, self.new)


pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

VERSION = Flaw(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x0a")
NEGATIVE = Flaw(b"\x02\x01\x0d", b"\x02\x01\xee")
KIND_OF_NAME = Flaw(b"\x86" + _SIZE + _URI, b"\xa3" + _SIZE + _URI)  # an x400Address
CURVE = Flaw(_CURVE + b"\x07", _CURVE + b"\x79")
SUBJECT = Flaw(b"web.svc", b"\xffeb.svc")  # for OpenSSL no certificate, for cryptography one with a subject
SUBJECT_KIND = Flaw(b"\x0c\x1fweb", b"\x03\x1f\0eb")  # the other way round


def text_of(certificate: bytes) -> str:
    """PEM, by no parser's leave."""
    return ssl.DER_cert_to_PEM_cert(certificate)


@pytest.mark.parametrize("flaw", [VERSION, NEGATIVE, KIND_OF_NAME])
def test_a_peer_with_such_a_certificate_is_malformed(flaw: Flaw) -> None:
    top = root()
    with pytest.raises(PeerRejected) as caught:
        verify_peer([flaw.of(top.leaf().certificate, top), der(top.certificate)], bundle(top), AT)
    assert caught.value.reason is PeerReason.MALFORMED


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        (VERSION, LeafReason.BAD_CERTIFICATE),
        (NEGATIVE, LeafReason.MALFORMED),
        (KIND_OF_NAME, LeafReason.MALFORMED),
    ],
)
def test_such_a_leaf_of_our_own_is_refused(flaw: Flaw, reason: LeafReason) -> None:
    top = root()
    leaf = top.leaf()
    with pytest.raises(LeafRejected) as caught:
        parse_leaf(text_of(flaw.of(leaf.certificate, top)), leaf.key_pem)
    assert caught.value.reason is reason


def proof(flaw: Flaw) -> CredentialsRejected:
    top = root()
    leaf = top.leaf()
    parsed = parse_leaf(text_of(flaw.of(leaf.certificate, top)), leaf.key_pem)
    with pytest.raises(CredentialsRejected) as caught:
        prove(parsed, bundle(top), service="web", datacenter="dc1", at=AT)
    return caught.value


def test_a_public_key_of_an_unknown_kind_belongs_to_no_private_key() -> None:
    assert proof(CURVE).reason is CredentialsReason.KEY_MISMATCH


def test_a_leaf_that_openssl_cannot_read_has_no_chain() -> None:
    assert proof(SUBJECT).reason is CredentialsReason.INVALID_CHAIN


@pytest.mark.parametrize("flaw", [VERSION, Flaw(b"pri-", b"\xffri-")])
def test_such_a_root_is_refused(flaw: Flaw) -> None:
    top = root()
    answer = roots_answer(top)
    answer["Roots"][0]["RootCert"] = text_of(flaw.of(top.certificate, top))  # type: ignore[index]
    with pytest.raises(BundleRejected) as caught:
        parse_roots(answer)
    assert caught.value.reason is BundleReason.BAD_CERTIFICATE


def test_a_stranger_with_an_unreadable_subject_is_a_stranger() -> None:
    top = root()
    certificate = x509.load_der_x509_certificate(SUBJECT_KIND.of(top.leaf().certificate, top))
    with pytest.raises(ChainBroken) as caught:
        reach(certificate, (), bundle(root()), AT)
    assert caught.value.reason is ChainReason.UNTRUSTED_CHAIN


def test_a_chain_that_does_not_hold_leaves_no_error_for_an_innocent_connection() -> None:
    """OpenSSL takes what is in its queue for the failure of the next call that only has to wait."""
    top, other = root(), root()
    contexts = build_contexts(credentials(top.leaf(), bundle(top)), 1)
    innocent, _ = handshake(contexts.server, contexts.client)
    forged = changed(top.leaf().certificate, other.key, b"web.svc", b"bew.svc")
    with pytest.raises(ChainBroken):
        reach(x509.load_der_x509_certificate(forged), (), bundle(top), AT)
    with pytest.raises(SSL.WantReadError):
        innocent.recv(1)
