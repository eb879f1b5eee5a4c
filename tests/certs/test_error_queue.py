"""What one failure leaves in OpenSSL's queue is not told of another."""

from __future__ import annotations

import pytest
from cryptography import x509
from OpenSSL import crypto

from certs.error_queue import forget_errors
from tests.certs.authority import Issuer
from tests.certs.signing import changed


def waiting() -> list[tuple[str, str, str]]:
    """What is in the queue; asking takes it out."""
    with pytest.raises(crypto.Error) as caught:
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
    return list(caught.value.args[0])


def test_a_signature_that_is_none_is_forgotten() -> None:
    root, impostor = Issuer.root(), Issuer.root()
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root.certificate))
    forged = changed(root.leaf().certificate, impostor.key, b"web.svc", b"bew.svc")
    leaf = crypto.X509.from_cryptography(x509.load_der_x509_certificate(forged))
    for forget in (False, True):
        with pytest.raises(crypto.X509StoreContextError):
            crypto.X509StoreContext(store, leaf).verify_certificate()
        if forget:
            forget_errors()
        assert (waiting() == []) is forget
