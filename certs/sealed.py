"""Seals bytes with a secret, so that who reads or changes the file learns and achieves nothing.

ChaCha20-Poly1305 (RFC 8439) under a key that HKDF (RFC 5869) derives from the secret; the header stays
readable and is authenticated with the rest. The nonce is the caller's, random, and never used twice.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
LEAST_SECRET = 32  # bytes
_PURPOSE = b"connect-sidecar state"


class SealBroken(Exception):
    """The bytes were not sealed with this secret and this header."""


def seal(secret: bytes, nonce: bytes, header: bytes, plain: bytes) -> bytes:
    """Return the nonce and the encrypted bytes."""
    return nonce + _cipher(secret).encrypt(nonce, plain, header)


def unseal(secret: bytes, header: bytes, sealed: bytes) -> bytes:
    """Return what was sealed. Raises SealBroken."""
    try:
        return _cipher(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], header)
    except (InvalidTag, ValueError) as error:  # a nonce that is cut short is a ValueError
        raise SealBroken("it was written with another secret, or changed") from error


def _cipher(secret: bytes) -> ChaCha20Poly1305:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return ChaCha20Poly1305(derived.derive(secret))
