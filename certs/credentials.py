"""Credentials: a leaf and a trust bundle that are proven to fit together.

A pair that does not fit never replaces one that does; its reason is reported instead. New roots are in force
all the same, at once: a removed root vouches for no certificate any more, our own included. The leaf in force
is then retained beside them, marked unfit for use with peers, until another leaf comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.bundle import TrustBundle
from certs.chain import ChainBroken, reach
from certs.leaf import Leaf
from certs.rejection import UNREADABLE, Rejection

_ENDS = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


class CredentialsReason(StrEnum):
    """Why a leaf and a bundle are not credentials."""

    KEY_MISMATCH = "key_mismatch"
    WRONG_SERVICE = "wrong_service"
    WRONG_DATACENTER = "wrong_datacenter"
    WRONG_TRUST_DOMAIN = "wrong_trust_domain"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_USAGE = "wrong_usage"
    MISSING_INTERMEDIATE = "missing_intermediate"
    UNTRUSTED_CHAIN = "untrusted_chain"
    INVALID_CHAIN = "invalid_chain"
    REFUSED_BY_OPENSSL = (
        "refused_by_openssl"  # a key, signature or chain with which no handshake would succeed
    )


class OwnFault(StrEnum):
    """Why the credentials in force cannot be used: every peer would refuse them."""

    EXPIRED = "credentials_expired"
    UNTRUSTED = "credentials_untrusted"


class CredentialsRejected(Rejection[CredentialsReason]):
    """The pair does not fit; the last good credentials stay in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The only value that TLS contexts are made from. Only `prove` and `retain` make it.

    `unfit` says why a peer with these roots would refuse the leaf; it is empty while they fit.
    """

    leaf: Leaf
    bundle: TrustBundle
    unfit: str = ""

    def fault(self, at: datetime) -> tuple[OwnFault, str] | None:
        """Return why the credentials cannot be used at that time, as reason and sentence.

        None if they can.
        """
        if at > self.leaf.not_after:
            return OwnFault.EXPIRED, f"our certificate expired at {self.leaf.not_after.isoformat()}"
        return (OwnFault.UNTRUSTED, f"our certificate is {self.unfit}") if self.unfit else None


def prove(
    leaf: Leaf, bundle: TrustBundle, *, service: str, datacenter: str | None, at: datetime
) -> Credentials:
    """Return the pair as credentials of `service` at time `at`. Raises CredentialsRejected.

    `datacenter` is None if Consul has not named ours (before 1.9); then every datacenter is accepted.
    """
    _check_key(leaf)
    _check_identity(leaf, bundle, service, datacenter)
    _check_window(leaf, at)
    _check_usage(leaf)
    _check_chain(leaf, bundle, at)
    return Credentials(leaf=leaf, bundle=bundle)


def retain(leaf: Leaf, bundle: TrustBundle, at: datetime) -> Credentials:
    """Return a leaf that was proven under other roots, with these roots; `unfit` says whether they fit.

    The leaf's own validity is left to `fault`, since time goes on; that of the certificates above it is
    checked.
    """
    try:
        _check_trust_domain(leaf, bundle)
        _check_chain(leaf, bundle, max(leaf.not_before, min(at, leaf.not_after)))
    except CredentialsRejected as error:
        return Credentials(leaf=leaf, bundle=bundle, unfit=str(error))
    return Credentials(leaf=leaf, bundle=bundle)


def _check_key(leaf: Leaf) -> None:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = leaf.certificate.public_key().public_bytes(*form)
    except UNREADABLE as error:
        detail = f"the public key of certificate {leaf.serial} cannot be read: {error}"
        raise CredentialsRejected(CredentialsReason.KEY_MISMATCH, detail) from error
    if leaf.key.public_key().public_bytes(*form) != certified:
        detail = f"the private key does not belong to certificate {leaf.serial}"
        raise CredentialsRejected(CredentialsReason.KEY_MISMATCH, detail)


def _check_identity(leaf: Leaf, bundle: TrustBundle, service: str, datacenter: str | None) -> None:
    if leaf.id.service.lower() != service.lower():
        detail = f"{leaf.id} is not service {service!r}"
        raise CredentialsRejected(CredentialsReason.WRONG_SERVICE, detail)
    if datacenter is not None and leaf.id.datacenter.lower() != datacenter.lower():
        detail = f"{leaf.id} is not of datacenter {datacenter!r}"
        raise CredentialsRejected(CredentialsReason.WRONG_DATACENTER, detail)
    _check_trust_domain(leaf, bundle)


def _check_trust_domain(leaf: Leaf, bundle: TrustBundle) -> None:
    if leaf.id.trust_domain != bundle.trust_domain:
        detail = f"{leaf.id} is not of trust domain {bundle.trust_domain}"
        raise CredentialsRejected(CredentialsReason.WRONG_TRUST_DOMAIN, detail)


def _check_window(leaf: Leaf, at: datetime) -> None:
    if at > leaf.not_after:
        detail = f"certificate {leaf.serial} expired at {leaf.not_after.isoformat()}"
        raise CredentialsRejected(CredentialsReason.EXPIRED, detail)
    if at < leaf.not_before:
        detail = (
            f"certificate {leaf.serial} is valid from {leaf.not_before.isoformat()}; it is {at.isoformat()}"
        )
        raise CredentialsRejected(CredentialsReason.NOT_YET_VALID, detail)


def _check_usage(leaf: Leaf) -> None:
    """Raise CredentialsRejected if the leaf may not be a server's (inbound) and a client's (outbound)."""
    try:
        usages = leaf.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # no restriction (RFC 5280, 4.2.1.12)
    for end, usage in _ENDS.items():
        if usage not in usages:
            detail = f"certificate {leaf.serial} is not for TLS {end}s"
            raise CredentialsRejected(CredentialsReason.WRONG_USAGE, detail)


def _check_chain(leaf: Leaf, bundle: TrustBundle, at: datetime) -> None:
    try:
        reach(leaf.certificate, leaf.extra, bundle, at)
    except ChainBroken as error:
        reason = CredentialsReason(error.reason.value)
        if reason is CredentialsReason.UNTRUSTED_CHAIN and _signer_is_announced(leaf, bundle):
            reason = CredentialsReason.MISSING_INTERMEDIATE
        raise CredentialsRejected(reason, error.detail) from error


def _signer_is_announced(leaf: Leaf, bundle: TrustBundle) -> bool:
    """Return whether a trusted root announces the leaf's issuer: then only an intermediate is missing."""
    return bool(leaf.signer) and bundle.announces(leaf.signer)
