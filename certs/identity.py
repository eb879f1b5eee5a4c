"""The identity that a certificate claims: exactly one URI, in the service form."""

from __future__ import annotations

from enum import StrEnum

from cryptography import x509

from certs import spiffe
from certs.rejection import UNREADABLE, Rejection
from certs.spiffe import ServiceId


class IdentityReason(StrEnum):
    """Why a certificate does not name a service."""

    MALFORMED = "malformed"
    NO_URI = "no_uri"
    SEVERAL_URIS = "several_uris"
    INVALID_ID = "invalid_id"
    NOT_A_SERVICE = "not_a_service"


class NoIdentity(Rejection[IdentityReason]):
    """The certificate names no service."""


def service_of(certificate: x509.Certificate) -> ServiceId:
    """Return the service in the subject alternative names. Raises NoIdentity.

    Consul's own proxy reads the first URI only; here a second one is refused (docs/consul-api.md#identity).
    """
    if certificate.serial_number < 0:  # RFC 5280 §4.1.2.2; a deny list could not name it
        raise NoIdentity(IdentityReason.MALFORMED, "the serial number is negative")
    uri = _sole_uri(certificate)
    try:
        identity = spiffe.parse(uri)
    except spiffe.InvalidSpiffeId as error:
        raise NoIdentity(IdentityReason.INVALID_ID, str(error)) from error
    if not isinstance(identity, ServiceId):
        raise NoIdentity(IdentityReason.NOT_A_SERVICE, f"{identity} does not name a service")
    return identity


def _sole_uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise NoIdentity(IdentityReason.NO_URI, "the certificate has no subject alternative name") from None
    except UNREADABLE as error:
        raise NoIdentity(IdentityReason.MALFORMED, f"unreadable extensions: {error}") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise NoIdentity(IdentityReason.NO_URI, "the certificate has no URI among its names")
    if len(uris) > 1:
        raise NoIdentity(IdentityReason.SEVERAL_URIS, f"the certificate has {len(uris)} URIs, not one")
    return uris[0]
