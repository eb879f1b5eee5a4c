"""The roots we trust: every root that Consul lists, active and retiring.

Only `RootCert` is trusted. `IntermediateCerts` are sent with leaves and are never trust anchors
(docs/consul-api.md#roots).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from certs.rejection import UNREADABLE, Rejection
from certs.spiffe import InvalidSpiffeId, TrustDomain

MOST_ROOTS = 256  # one for each rotation within twice the life of a leaf


class BundleReason(StrEnum):
    """Why an answer of the roots endpoint is no trust bundle."""

    MALFORMED = "malformed"
    BAD_TRUST_DOMAIN = "bad_trust_domain"
    BAD_CERTIFICATE = "bad_certificate"
    NO_ROOTS = "no_roots"
    NO_ACTIVE_ROOT = "no_active_root"
    SEVERAL_ACTIVE_ROOTS = "several_active_roots"
    TOO_MANY_ROOTS = "too_many_roots"


class BundleRejected(Rejection[BundleReason]):
    """The roots are unusable; the last good bundle stays in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A trust anchor. `signing_key_id` names the key that signs leaves in this datacenter (colon hex)."""

    id: str
    name: str
    serial: int
    certificate: x509.Certificate
    pem: str
    fingerprint: str  # SHA-256 of the DER in hex, which identifies the content
    signing_key_id: str
    active: bool
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """The trust domain and its roots: one of them is active, and no two have the same content.

    `unreadable`: which retiring roots cannot be read; certificates under them are not trusted.
    """

    trust_domain: TrustDomain
    roots: tuple[Root, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def active(self) -> Root:
        """The root that signs new leaves."""
        return next(root for root in self.roots if root.active)

    @property
    def fingerprints(self) -> frozenset[str]:
        """The content of the trust set, whatever the order and index of the answer."""
        return frozenset(root.fingerprint for root in self.roots)

    def root(self, fingerprint: str) -> Root | None:
        """Return the root with that fingerprint; None if it is not trusted."""
        return next((root for root in self.roots if root.fingerprint == fingerprint), None)

    def announces(self, key_id: str) -> bool:
        """Return whether a root announces leaves signed by that key (colon hex)."""
        return any(root.signing_key_id == key_id for root in self.roots)

    @property
    def signs_itself(self) -> bool:
        """Whether the active root's own key signs leaves here, as in the primary datacenter."""
        try:
            key = self.active.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except (x509.ExtensionNotFound, ValueError):
            return False
        return self.active.signing_key_id.replace(":", "") == key.value.digest.hex()

    def same_trust(self, other: TrustBundle) -> bool:
        """Return whether both have the same roots and trust domain: Consul's index moves without a change."""
        return self.trust_domain == other.trust_domain and self.fingerprints == other.fingerprints


class _RootAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    id: str = msgspec.field(name="ID", default="")
    name: str = ""
    serial_number: int = 0  # an unsigned 64-bit integer: may be beyond 2^53
    signing_key_id: str = msgspec.field(name="SigningKeyID", default="")
    root_cert: str
    active: bool = False


class _RootsAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    trust_domain: str
    roots: list[_RootAnswer] | None = None


def parse_roots(answer: Mapping[str, object]) -> TrustBundle:
    """Read a decoded answer of /v1/agent/connect/ca/roots. Raises BundleRejected.

    The order of the answer has no meaning and is kept. Roots of equal content are taken once. A retiring root
    that cannot be read is left out: to keep the last bundle because of it would mean to go on trusting roots
    that Consul may have removed.
    """
    try:
        parsed = msgspec.convert(answer, _RootsAnswer)
        trust_domain = TrustDomain.parse(parsed.trust_domain)
    except msgspec.ValidationError as error:
        raise BundleRejected(BundleReason.MALFORMED, str(error)) from error
    except InvalidSpiffeId as error:
        raise BundleRejected(BundleReason.BAD_TRUST_DOMAIN, str(error)) from error
    if len(parsed.roots or ()) > MOST_ROOTS:
        detail = f"the answer lists {len(parsed.roots or ())} roots; at most {MOST_ROOTS}"
        raise BundleRejected(BundleReason.TOO_MANY_ROOTS, detail)
    readable, unreadable = _readable(parsed.roots or ())
    roots = _distinct(readable)
    if not roots:
        raise BundleRejected(BundleReason.NO_ROOTS, "the answer lists no roots")
    active = sum(root.active for root in roots)
    if active == 0:
        raise BundleRejected(BundleReason.NO_ACTIVE_ROOT, f"none of {len(roots)} roots is active")
    if active > 1:
        raise BundleRejected(BundleReason.SEVERAL_ACTIVE_ROOTS, f"{active} of {len(roots)} roots are active")
    return TrustBundle(trust_domain=trust_domain, roots=roots, unreadable=unreadable)


@lru_cache(maxsize=64)  # called for each connection's root
def fingerprint_of(der: bytes) -> str:
    """Return the SHA-256 in hex, which tells certificates apart where serials and names do not."""
    return hashlib.sha256(der).hexdigest()


def _readable(answers: Iterable[_RootAnswer]) -> tuple[list[Root], tuple[str, ...]]:
    """Return the roots, and what is wrong with retiring ones.

    Raises BundleRejected for an unreadable active one.
    """
    roots, unreadable = list[Root](), list[str]()
    for answer in answers:
        try:
            roots.append(_root(answer))
        except BundleRejected as error:
            if answer.active:
                raise
            unreadable.append(error.detail)
    if unreadable and not roots:
        raise BundleRejected(BundleReason.BAD_CERTIFICATE, unreadable[0])
    return roots, tuple(unreadable)


def _root(answer: _RootAnswer) -> Root:
    try:
        (certificate,) = x509.load_pem_x509_certificates(answer.root_cert.encode())
        crypto.X509.from_cryptography(certificate)
    except (*UNREADABLE, crypto.Error) as error:  # no PEM, several certificates, or DER that OpenSSL refuses
        raise BundleRejected(BundleReason.BAD_CERTIFICATE, f"root {answer.id!r}: {error}") from error
    return Root(
        id=answer.id,
        name=answer.name,
        # The serial is shown to people only, so a wrong one does not make the root unusable.
        serial=answer.serial_number if 0 <= answer.serial_number < 1 << 64 else 0,
        certificate=certificate,
        pem=answer.root_cert.rstrip() + "\n",
        fingerprint=fingerprint_of(certificate.public_bytes(Encoding.DER)),
        signing_key_id=answer.signing_key_id.lower(),
        active=answer.active,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _distinct(roots: Iterable[Root]) -> tuple[Root, ...]:
    """Return one root per content; of two equal ones the active one."""
    by_content: dict[str, Root] = {}
    for root in roots:
        known = by_content.get(root.fingerprint)
        if known is None or root.active:
            by_content[root.fingerprint] = root
    return tuple(by_content.values())
