"""OpenSSL's error queue, which all TLS connections of a thread share."""

from __future__ import annotations

from contextlib import suppress

from OpenSSL import crypto

MALLOC_FAILURE = "malloc failure"  # OpenSSL's text for ERR_R_MALLOC_FAILURE: a shortage of this process


def forget_errors() -> None:
    """Empty the queue.

    When a call only has to wait, SSL_get_error takes an error left in the queue for that call's failure, on
    whichever connection it was made. A failed verification leaves errors there, since pyOpenSSL reads only
    the context's code; so does a write to a closed socket (SysCallError). The call here fails, and pyOpenSSL
    then empties the queue.
    """
    with suppress(crypto.Error):
        crypto.load_certificate(crypto.FILETYPE_ASN1, b"")
