"""OpenSSL's queue of errors, which all TLS connections of a thread share."""

from __future__ import annotations

from contextlib import suppress

from OpenSSL import crypto


def forget_errors() -> None:
    """Empty it.

    OpenSSL takes what is in the queue for the failure of the next call that only has to wait (SSL_get_error),
    whichever connection made that. A verification that fails leaves its errors there, for pyOpenSSL takes
    only the code out of the context; so does a write to a socket that has gone (SysCallError). What fails
    here takes them all away.
    """
    with suppress(crypto.Error):
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
