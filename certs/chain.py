"""Whether a chain reaches a trusted root at a given time: OpenSSL's path building, with our clock.

The certificates beside a leaf are an unordered pool, which may hold expired ones
(docs/consul-api.md#certificates): after a rotation in a secondary datacenter the second certificate does not
sign the first. OpenSSL tries trusted roots first, so a cross-signed root in the pool is used only when the
new root itself is not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from OpenSSL import crypto

from certs.bundle import TrustBundle
from certs.error_queue import forget_errors
from certs.rejection import UNREADABLE, Rejection

# X509_V_ERR_* of openssl/x509_vfy.h; pyOpenSSL passes the numbers through without names for them.
_NO_ISSUER = frozenset({2, 18, 19, 20, 21})
_NOT_YET_VALID = 9
_EXPIRED = 10


class ChainReason(StrEnum):
    """Why a chain does not reach the bundle."""

    UNTRUSTED_CHAIN = "untrusted_chain"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    INVALID_CHAIN = "invalid_chain"


class ChainBroken(Rejection[ChainReason]):
    """No path leads from the certificate to a trusted root."""


def reach(
    certificate: x509.Certificate, pool: Sequence[x509.Certificate], bundle: TrustBundle, at: datetime
) -> tuple[x509.Certificate, ...]:
    """Return the path from `certificate` through `pool` to a root of the bundle, both ends included.

    Signatures, CA flags, path lengths and validity are checked. Key usage for TLS is not, since only the
    caller knows which end of TLS it is. Raises ChainBroken.
    """
    store = crypto.X509Store()
    store.set_time(at)
    for root in bundle.roots:
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
    try:
        untrusted = [crypto.X509.from_cryptography(extra) for extra in pool]
        context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate), untrusted)
        path = context.get_verified_chain()
        return tuple(step.to_cryptography() for step in path)
    except crypto.X509StoreContextError as error:
        forget_errors()
        raise _broken(error) from error
    except (*UNREADABLE, crypto.Error) as error:
        forget_errors()
        raise ChainBroken(ChainReason.INVALID_CHAIN, f"a certificate cannot be read: {error}") from error


def _broken(error: crypto.X509StoreContextError) -> ChainBroken:
    code, depth, message = error.errors
    detail = f"{message}, at depth {depth}: {_subject(error.certificate)}"
    if code == _EXPIRED:
        return ChainBroken(ChainReason.EXPIRED, detail)
    if code == _NOT_YET_VALID:
        return ChainBroken(ChainReason.NOT_YET_VALID, detail)
    if code in _NO_ISSUER:
        return ChainBroken(ChainReason.UNTRUSTED_CHAIN, detail)
    return ChainBroken(ChainReason.INVALID_CHAIN, detail)


def _subject(certificate: crypto.X509) -> str:
    """Return the subject for a person, also of a certificate that can hardly be read."""
    try:
        return certificate.to_cryptography().subject.rfc4514_string() or "an empty subject"
    except (*UNREADABLE, crypto.Error):
        return "an unreadable subject"
