"""Whether a peer accepts a leaf, by OpenSSL.

`cryptography`'s verifier refuses a chain in which an issuer has no name, and so every leaf of a secondary, as
those of Consul 1.18: docs/consul-api.md#certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto


def accepted(pem: str, roots: Iterable[x509.Certificate], at: datetime) -> bool:
    """Whether the leaf, with what travels with it, reaches one of the roots at that time."""
    leaf, *others = (
        crypto.X509.from_cryptography(each) for each in x509.load_pem_x509_certificates(pem.encode())
    )
    store = crypto.X509Store()
    store.set_time(at)
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError:
        return False
    return True


def named(chain: Sequence[x509.Certificate]) -> bool:
    """Whether every issuer in it has a name."""
    return all(list(certificate.issuer) for certificate in chain)
