"""Verifies the identity at the other end of a handshake, after OpenSSL's checks, by our clock.

OpenSSL has verified signatures, CA flags, path lengths and TLS purpose against our roots, but no dates
(`contexts.py` says why). The remaining checks are made here, in an order that names the simplest fault first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle, fingerprint_of
from certs.chain import ChainBroken, reach
from certs.identity import NoIdentity, service_of
from certs.leaf import serial_text
from certs.rejection import UNREADABLE, Rejection
from certs.spiffe import ServiceId

# The same certificates come back with every connection, and their content does not change. Reading one again
# costs more than all other checks here. Nothing that depends on the time or on our roots is cached.
_REMEMBERED = 512

_Window = tuple[datetime, datetime]
E = TypeVar("E", bound=x509.ExtensionType)


class PeerReason(StrEnum):
    """Why a peer is refused although OpenSSL found a path to a root of the context."""

    MALFORMED = "malformed"
    NO_URI = "no_uri"
    SEVERAL_URIS = "several_uris"
    INVALID_ID = "invalid_id"
    NOT_A_SERVICE = "not_a_service"
    IS_A_CA = "is_a_ca"
    WRONG_TRUST_DOMAIN = "wrong_trust_domain"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNTRUSTED_ROOT = "untrusted_root"


class PeerRejected(Rejection[PeerReason]):
    """The peer is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The identity that the other end has proven.

    `not_after`: when the first certificate of its chain expires; `root`: the fingerprint of the root that
    ends the chain, to be looked up in later bundles.
    """

    id: ServiceId
    serial: str
    not_after: datetime
    root: str


def verify_peer(chain: Sequence[bytes], bundle: TrustBundle, at: datetime) -> Peer:
    """Verify the chain that OpenSSL has verified (DER, leaf first, root last) at `at`.

    Raises PeerRejected.
    """
    if not chain:
        raise PeerRejected(PeerReason.MALFORMED, "there is no certificate")
    leaf = _read_leaf(chain[0])
    identity = leaf.identity
    if identity.trust_domain != bundle.trust_domain:
        detail = f"{identity} is not of trust domain {bundle.trust_domain}"
        raise PeerRejected(PeerReason.WRONG_TRUST_DOMAIN, detail)
    _check_window(*leaf.window, at, "leaf")
    root, path_not_after = _check_path(chain, bundle, at)
    return Peer(
        id=identity,
        serial=leaf.serial,
        not_after=min(leaf.window[1], path_not_after),
        root=root,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """The content of a leaf. `window`: not before, not after."""

    identity: ServiceId
    serial: str
    window: _Window


@lru_cache(maxsize=_REMEMBERED)
def _read_leaf(der: bytes) -> _Leaf:
    """Read a service's leaf. Raises PeerRejected, which is not cached."""
    leaf = _load(der)
    identity = _identity(leaf)
    _refuse_authority(leaf)
    return _Leaf(identity=identity, serial=serial_text(leaf.serial_number), window=_window(leaf))


@lru_cache(maxsize=_REMEMBERED)
def _read_window(der: bytes) -> _Window:
    return _window(_load(der))


def _window(certificate: x509.Certificate) -> _Window:
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise PeerRejected(PeerReason.MALFORMED, f"unreadable certificate: {error}") from error


def _identity(leaf: x509.Certificate) -> ServiceId:
    try:
        return service_of(leaf)
    except NoIdentity as error:
        raise PeerRejected(PeerReason(error.reason.value), error.detail) from error


def _refuse_authority(leaf: x509.Certificate) -> None:
    """Raise PeerRejected for a certificate that may sign others (SPIFFE X.509-SVID, sections 4.1 and 4.3)."""
    constraints = _extension(leaf, x509.BasicConstraints)
    usage = _extension(leaf, x509.KeyUsage)
    if (constraints and constraints.ca) or (usage and (usage.key_cert_sign or usage.crl_sign)):
        raise PeerRejected(PeerReason.IS_A_CA, "the certificate may sign others: it is no workload's")


def _extension(leaf: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_path(chain: Sequence[bytes], bundle: TrustBundle, at: datetime) -> tuple[str, datetime]:
    """Return the root's fingerprint, and when the first certificate above the leaf expires."""
    try:
        return _walk(chain, bundle, at)
    except PeerRejected as refusal:
        if refusal.reason not in {PeerReason.EXPIRED, PeerReason.NOT_YET_VALID}:
            raise
        # OpenSSL checks no dates. Of two issuers with one name and key (a renewed root, a repeated
        # cross-signature) its path may contain the expired one. This is rare, so another path is looked for
        # only now.
        try:
            path = reach(_load(chain[0]), [_load(der) for der in chain[1:]], bundle, at)
        except ChainBroken:
            raise refusal from None
        return _walk([step.public_bytes(Encoding.DER) for step in path], bundle, at)


def _walk(chain: Sequence[bytes], bundle: TrustBundle, at: datetime) -> tuple[str, datetime]:
    expiries = []
    for der in chain[1:-1]:
        window = _read_window(der)
        _check_window(*window, at, "intermediate")
        expiries.append(window[1])
    fingerprint = fingerprint_of(chain[-1])
    root = bundle.root(fingerprint)
    if root is None:
        detail = f"its chain ends in a root that is not trusted (SHA-256 {fingerprint})"
        raise PeerRejected(PeerReason.UNTRUSTED_ROOT, detail)
    _check_window(root.not_before, root.not_after, at, "root")
    return fingerprint, min([root.not_after, *expiries])


def _check_window(not_before: datetime, not_after: datetime, at: datetime, role: str) -> None:
    if at > not_after:
        raise PeerRejected(PeerReason.EXPIRED, f"its {role} expired at {not_after.isoformat()}")
    if at < not_before:
        detail = f"its {role} is valid from {not_before.isoformat()}; it is {at.isoformat()}"
        raise PeerRejected(PeerReason.NOT_YET_VALID, detail)
