"""Certificates that no builder would make: any bytes signed, and a certificate with some bytes changed."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certs.authority import Key

_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758 §3.2


def element(tag: int, content: bytes) -> bytes:
    """A DER element (X.690 §8.1)."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    count = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | count]) + size.to_bytes(count, "big") + content


def signed(content: bytes, key: Key) -> bytes:
    """A certificate of these bytes, which are a TBSCertificate if they mean to be (RFC 5280 §4.1)."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    return element(0x30, content + _ECDSA_WITH_SHA256 + element(0x03, b"\0" + signature))


def changed(certificate: x509.Certificate, key: Key, old: bytes, new: bytes) -> bytes:
    """The certificate signed anew, with as many other bytes in place of some."""
    assert len(old) == len(new)
    content = certificate.tbs_certificate_bytes
    assert old in content
    return signed(content.replace(old, new), key)
