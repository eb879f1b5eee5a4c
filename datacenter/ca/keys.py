"""Keys of a certificate authority: their kinds, their text form, and their ids as in Consul.

A private key is only generated here or read from a private document. This module prints, logs and raises
none.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes

SigningKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CURVES: dict[int, type[ec.EllipticCurve]] = {
    224: ec.SECP224R1,
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
_RSA_BITS = (2048, 4096)
_PARSED_KEYS = 4  # the signing key, and those of the tests that run several datacenters in one process


class InvalidKey(ValueError):
    """The text is no key, or of a kind an authority may not use. The error never quotes the key."""


@dataclass(frozen=True, slots=True)
class KeyKind:
    """`PrivateKeyType` and `PrivateKeyBits` of Consul's CA configuration: ec 224–521, rsa 2048 and 4096."""

    type: str
    bits: int

    def __post_init__(self) -> None:
        match self.type:
            case "ec" if self.bits not in _CURVES:
                raise InvalidKey("EC key length must be one of (224, 256, 384, 521) bits")
            case "rsa" if self.bits not in _RSA_BITS:
                raise InvalidKey("RSA key length must be 2048 or 4096 bits")
            case "ec" | "rsa":
                return
            case _:
                raise InvalidKey("private key type must be either 'ec' or 'rsa'")


DEFAULT_KIND = KeyKind("ec", 256)


def generate_key(kind: KeyKind = DEFAULT_KIND) -> SigningKey:
    """Return a new key from OpenSSL's own randomness. RSA 4096 takes seconds: not for an event loop."""
    if kind.type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=kind.bits)
    return ec.generate_private_key(_CURVES[kind.bits]())


async def generate_key_aside(kind: KeyKind) -> SigningKey:
    """Return a new key made in another thread, since RSA would stop the whole datacenter."""
    if kind.type == "rsa":
        return await trio.to_thread.run_sync(generate_key, kind)
    return generate_key(kind)


@functools.lru_cache(maxsize=_PARSED_KEYS)
def load_key(pem: str) -> SigningKey:
    """Read an unencrypted PEM key. Raises InvalidKey."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause: OpenSSL's texts may quote their input.
        raise InvalidKey("the private key is not an unencrypted PEM key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidKey("private key type must be either 'ec' or 'rsa'")
    kind_of(key.public_key())
    return key


def key_pem(key: SigningKey) -> str:
    """Return SEC1 ("EC PRIVATE KEY") or PKCS #1 text, the forms Consul writes."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def kind_of(public_key: PublicKeyTypes | CertificatePublicKeyTypes) -> KeyKind:
    """Return the kind of a key. Raises InvalidKey for one an authority may not use."""
    match public_key:
        case ec.EllipticCurvePublicKey() if isinstance(public_key.curve, tuple(_CURVES.values())):
            return KeyKind("ec", public_key.curve.key_size)
        case rsa.RSAPublicKey():
            return KeyKind("rsa", public_key.key_size)
        case _:
            raise InvalidKey("private key type must be either 'ec' or 'rsa'")


def key_id(public_key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    """Return Consul's subject key id: SHA-256 of the SubjectPublicKeyInfo, 32 bytes (seen on 1.10.12)."""
    return hashlib.sha256(
        public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def colon_hex(data: bytes) -> str:
    """Return `0a:1b:…`, the form in which Consul prints fingerprints, key ids and serials."""
    return data.hex(":")
