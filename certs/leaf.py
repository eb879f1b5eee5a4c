"""A leaf: our certificate, the certificates sent with it, and its key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.identity import NoIdentity, service_of
from certs.rejection import UNREADABLE, Rejection
from certs.spiffe import ServiceId

# OpenSSL refuses a peer's chain of more than 100 KiB (SSL_CTX_set_max_cert_list). Consul's has three or four
# certificates, and each renewal of an intermediate adds one.
MOST_CERTIFICATES = 32
MOST_BYTES = 64 << 10

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class LeafReason(StrEnum):
    """Why an answer of the leaf endpoint is no leaf."""

    MALFORMED = "malformed"
    BAD_CERTIFICATE = "bad_certificate"
    BAD_KEY = "bad_key"
    NO_URI = "no_uri"
    SEVERAL_URIS = "several_uris"
    INVALID_ID = "invalid_id"
    NOT_A_SERVICE = "not_a_service"
    OVERSIZED_CHAIN = "oversized_chain"


class LeafRejected(Rejection[LeafReason]):
    """The leaf is unusable; the last good one stays in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A service's certificate and key.

    `extra` are the certificates after it in `CertPEM`, in the order received: it need not be path order
    (docs/consul-api.md#certificates), and they are sent unchanged. `key` stays out of repr; only `handed_on`
    returns it as text.
    """

    certificate: x509.Certificate
    extra: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False, compare=False)
    id: ServiceId
    serial: str  # colon hex, as Consul prints it; unique within one CA only
    not_before: datetime
    not_after: datetime
    chain_bytes: int = 0  # of DER, sent in each handshake

    @property
    def signer(self) -> str:
        """The key id of the issuer (colon hex), as the leaf states it; empty if it states none."""
        try:
            issuer = self.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        except x509.ExtensionNotFound:
            return ""
        return (issuer.key_identifier or b"").hex(":")


def parse_leaf(cert_pem: str, key_pem: str) -> Leaf:
    """Read `CertPEM` and `PrivateKeyPEM`. Raises LeafRejected. `credentials.prove` checks that they fit."""
    certificate, *extra = chain = _certificates(cert_pem)
    size = _bounded(chain)
    try:
        identity = service_of(certificate)
    except NoIdentity as error:
        raise LeafRejected(LeafReason(error.reason.value), error.detail) from error
    return Leaf(
        certificate=certificate,
        extra=tuple(extra),
        key=_private_key(key_pem),
        id=identity,
        serial=serial_text(certificate.serial_number),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        chain_bytes=size,
    )


def handed_on(leaf: Leaf) -> tuple[str, str]:
    """Return `CertPEM` and `PrivateKeyPEM` as `parse_leaf` reads them, for another process of the agent."""
    chain = (leaf.certificate, *leaf.extra)
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in chain), key.decode()


def serial_text(number: int) -> str:
    """Return a serial number as Consul prints it (`0d`, `01:ff`); a negative one with its sign."""
    size = max(1, (number.bit_length() + 7) // 8)
    return ("-" if number < 0 else "") + abs(number).to_bytes(size, "big").hex(":")


def _bounded(chain: list[x509.Certificate]) -> int:
    """Return the bytes that each handshake would send. Raises LeafRejected if peers would refuse so many."""
    size = sum(len(certificate.public_bytes(Encoding.DER)) for certificate in chain)
    if len(chain) > MOST_CERTIFICATES or size > MOST_BYTES:
        detail = f"{len(chain)} certificates of {size} bytes; at most {MOST_CERTIFICATES} of {MOST_BYTES}"
        raise LeafRejected(LeafReason.OVERSIZED_CHAIN, detail)
    return size


def _certificates(cert_pem: str) -> list[x509.Certificate]:
    if len(cert_pem) > 2 * MOST_BYTES:  # too long to be parsed
        detail = f"CertPEM has {len(cert_pem)} characters; at most {2 * MOST_BYTES}"
        raise LeafRejected(LeafReason.OVERSIZED_CHAIN, detail)
    try:
        return x509.load_pem_x509_certificates(cert_pem.encode())
    except UNREADABLE as error:
        raise LeafRejected(LeafReason.BAD_CERTIFICATE, f"CertPEM: {error}") from error


def _private_key(key_pem: str) -> PrivateKey:
    # Neither cause nor the parser's text: no part of a key, not even of a broken one, may get into a
    # traceback.
    try:
        key = load_pem_private_key(key_pem.encode(), password=None)
    except Exception:  # noqa: BLE001 - ValueError, TypeError, UnsupportedAlgorithm: the parser's list is open
        raise LeafRejected(LeafReason.BAD_KEY, "PrivateKeyPEM is not a private key in PEM form") from None
    if not isinstance(key, PrivateKey):
        raise LeafRejected(LeafReason.BAD_KEY, "PrivateKeyPEM is neither an EC, an RSA nor an Ed25519 key")
    return key
