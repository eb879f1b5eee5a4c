"""Makes the certificates of Consul Connect by Consul's profiles. No effects: no clock, no store.

See docs/consul-api.md#certificates.

There are four kinds. A *root* signs itself and lives ten years. When it is replaced, it *cross-signs* the
successor's key for seven days, so that a verifier that trusts only the old root can follow the new one. A
secondary datacenter gets an *intermediate* for the key in its request, which may sign leaves only. A *leaf*
is a service's identity; no leaf outlives the certificate that signs it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.spiffe import InvalidSpiffeId, ServiceId, SigningId, TrustDomain, parse
from datacenter.ca.keys import InvalidKey, SigningKey, key_id, kind_of

BACKDATED = timedelta(minutes=1)  # for clocks that run behind ours
ROOT_YEARS = 10
CROSS_SIGNED_TTL = timedelta(days=7)

_LONGEST_NAME = 64  # X.520 ub-common-name
_SECONDARY_NAME = re.compile(r"sec-[a-z0-9]+\.consul\.ca\.[0-9a-f-]+\.consul")


class RequestRefused(Exception):
    """A certificate will not be signed. The text says which rule was broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)

    @property
    def key_id(self) -> bytes:
        """The key id that certificates signed by it name as their authority's."""
        return subject_key_id(self.certificate)


def subject_key_id(certificate: x509.Certificate) -> bytes:
    """Return the certificate's own key id, else Consul's way of computing one (external roots)."""
    try:
        stated = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return key_id(certificate.public_key())
    return stated.value.digest


def certificate_pem(certificate: x509.Certificate) -> str:
    """Return PEM text that ends in a newline."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def make_root(
    key: SigningKey, *, trust_domain: TrustDomain, serial: int, uid: str, at: datetime
) -> x509.Certificate:
    """Make a self-signed root. `uid` distinguishes its name from other roots'.

    Not backdated, as in Consul.
    """
    name = _name(f"pri-{uid}.consul.ca.{_short(trust_domain)}.consul")
    builder = _builder(name, name, key.public_key(), serial, (at, _years_after(at, ROOT_YEARS)))
    builder = _ca_extensions(builder, key.public_key(), key_id(key.public_key()), trust_domain, None)
    return builder.sign(key, hashes.SHA256())


def check_external_root(certificate: x509.Certificate, key: SigningKey, at: datetime) -> None:
    """Raise RequestRefused if an external root may not become ours."""
    if certificate.public_key() != key.public_key():
        raise RequestRefused("the root certificate does not belong to the private key")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise RequestRefused("the root certificate is not a CA") from None
    if not constraints.ca:
        raise RequestRefused("the root certificate is not a CA")
    if constraints.path_length == 0:
        raise RequestRefused("the root certificate's path length leaves no room for a secondary datacenter")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise RequestRefused("the root certificate is not self-signed") from None
    if not certificate.not_valid_before_utc <= at < certificate.not_valid_after_utc:
        raise RequestRefused("the root certificate is not valid now")


def cross_sign(successor: x509.Certificate, by: Signer, *, serial: int, at: datetime) -> x509.Certificate:
    """Return the successor root signed by `by`: its names and rights, valid for seven days."""
    not_before = at - BACKDATED
    not_after = min(not_before + CROSS_SIGNED_TTL, by.certificate.not_valid_after_utc)
    builder = _builder(
        successor.subject, by.certificate.subject, successor.public_key(), serial, (not_before, not_after)
    )
    for extension in successor.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier(subject_key_id(successor)), critical=False)
    return _authority(builder, by.key_id).sign(by.key, hashes.SHA256())


def intermediate_request(key: SigningKey, *, trust_domain: TrustDomain) -> x509.CertificateSigningRequest:
    """Return a secondary's request to the primary: its public key and the rights it asks for.

    As of Consul 1.18 it has no name but its URI, which therefore is critical (RFC 5280 section 4.2.1.6).
    """
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(_signing_name(trust_domain), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def sign_intermediate(
    request: x509.CertificateSigningRequest,
    by: Signer,
    *,
    trust_domain: TrustDomain,
    serial: int,
    at: datetime,
    ttl: timedelta,
) -> x509.Certificate:
    """Sign a secondary's request. Raises RequestRefused."""
    public_key = _check_request(request, trust_domain)
    not_before, not_after = _window(by, at, ttl)
    builder = _builder(request.subject, by.certificate.subject, public_key, serial, (not_before, not_after))
    names = bool(list(request.subject))
    builder = _ca_extensions(builder, public_key, by.key_id, trust_domain, 0, names=names)
    return builder.sign(by.key, hashes.SHA256())


def check_intermediate(
    certificate: x509.Certificate, key: SigningKey, root: x509.Certificate, trust_domain: TrustDomain
) -> None:
    """Raise RequestRefused if a primary has not signed what was asked for."""
    if certificate.public_key() != key.public_key():
        raise RequestRefused("the intermediate certificate is not for our key")
    try:
        certificate.verify_directly_issued_by(root)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise RequestRefused("the intermediate certificate is not signed by the active root") from None
    if constraints != x509.BasicConstraints(ca=True, path_length=0):
        raise RequestRefused("the intermediate certificate is not a CA of path length 0")
    if names != _signing_name(trust_domain):
        raise RequestRefused(f"the intermediate certificate is not for the trust domain {trust_domain}")


def sign_leaf(
    public_key: ec.EllipticCurvePublicKey,
    by: Signer,
    *,
    identity: ServiceId,
    serial: int,
    at: datetime,
    ttl: timedelta,
) -> x509.Certificate:
    """Return a service's certificate in the form of Consul 1.7–1.10.

    Raises RequestRefused if `by` has expired.
    """
    not_before, not_after = _window(by, at, ttl)
    builder = _builder(
        _name(leaf_name(identity)), by.certificate.subject, public_key, serial, (not_before, not_after)
    )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    builder = (
        builder.add_extension(_LEAF_USAGE, critical=True)
        .add_extension(usages, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id(public_key)), critical=False)
    )
    builder = _authority(builder, by.key_id).add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=False
    )
    return builder.sign(by.key, hashes.SHA256())


def leaf_name(identity: ServiceId) -> str:
    """Return `<service>.svc.<namespace>.<td8>.consul`, the service made fit for DNS and for a common name."""
    rest = f".svc.{identity.namespace}.{_short(identity.trust_domain)}.consul"
    service = re.sub(r"[^a-z0-9]", "", identity.service.lower())
    return f"{service[: max(0, _LONGEST_NAME - len(rest))]}{rest}"


def serial_hex(serial: int) -> str:
    """Return a leaf's `SerialNumber`: bytes in hexadecimal with colons between."""
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big").hex(":")


def _check_request(
    request: x509.CertificateSigningRequest, trust_domain: TrustDomain
) -> CertificatePublicKeyTypes:
    if not request.is_signature_valid:
        raise RequestRefused("the signature of the certificate request is not valid")
    public_key = request.public_key()
    try:
        kind_of(public_key)
    except InvalidKey as error:
        raise RequestRefused(str(error)) from None
    names = [str(attribute.value) for attribute in request.subject]
    if names and (len(names) != 1 or not _SECONDARY_NAME.fullmatch(names[0])):  # older ones have a name
        raise RequestRefused("the certificate request does not have the name of a secondary datacenter")
    if _requested_id(request) != SigningId(trust_domain=trust_domain):
        raise RequestRefused(f"the certificate request is not for the trust domain {trust_domain}")
    try:
        constraints = request.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise RequestRefused("the certificate request does not ask for a CA of path length 0") from None
    if constraints != x509.BasicConstraints(ca=True, path_length=0):
        raise RequestRefused("the certificate request does not ask for a CA of path length 0")
    return public_key


def _requested_id(request: x509.CertificateSigningRequest) -> SigningId | None:
    """Return the trust domain a request is for, None if it is for anything else."""
    try:
        names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return None
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        return None
    try:
        identity = parse(names[0].value)
    except InvalidSpiffeId:
        return None
    return identity if isinstance(identity, SigningId) else None


def _window(by: Signer, at: datetime, ttl: timedelta) -> tuple[datetime, datetime]:
    """Return the validity: from a minute ago, for `ttl`, but not beyond the signer's.

    Lives shorter than Consul's minimum, as in tests, are backdated by a tenth of themselves: otherwise a leaf
    of one minute would be expired from the start.
    """
    if by.certificate.not_valid_after_utc <= at:
        raise RequestRefused("the signing certificate has expired")
    not_before = at - min(BACKDATED, ttl / 10)
    return not_before, min(not_before + ttl, by.certificate.not_valid_after_utc)


def _years_after(at: datetime, years: int) -> datetime:
    try:
        return at.replace(year=at.year + years)
    except ValueError:  # 29 February
        return at.replace(year=at.year + years, month=3, day=1)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: CertificatePublicKeyTypes,
    serial: int,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(validity[0].replace(microsecond=0))
        .not_valid_after(validity[1].replace(microsecond=0))
    )


def _ca_extensions(
    builder: x509.CertificateBuilder,
    public_key: CertificatePublicKeyTypes,
    authority_key_id: bytes,
    trust_domain: TrustDomain,
    path_length: int | None,
    *,
    names: bool = True,
) -> x509.CertificateBuilder:
    builder = (
        builder.add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id(public_key)), critical=False)
    )
    return _authority(builder, authority_key_id).add_extension(
        _signing_name(trust_domain), critical=not names
    )


def _authority(builder: x509.CertificateBuilder, authority_key_id: bytes) -> x509.CertificateBuilder:
    return builder.add_extension(x509.AuthorityKeyIdentifier(authority_key_id, None, None), critical=False)


def _signing_name(trust_domain: TrustDomain) -> x509.SubjectAlternativeName:
    uri = str(SigningId(trust_domain=trust_domain))
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_LONGEST_NAME])])


def _short(trust_domain: TrustDomain) -> str:
    return trust_domain.name[:8]


def _usage(*granted: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in granted,
        content_commitment=False,
        key_encipherment="key_encipherment" in granted,
        data_encipherment="data_encipherment" in granted,
        key_agreement="key_agreement" in granted,
        key_cert_sign="key_cert_sign" in granted,
        crl_sign="crl_sign" in granted,
        encipher_only=False,
        decipher_only=False,
    )


_CA_USAGE = _usage("digital_signature", "key_cert_sign", "crl_sign")
_LEAF_USAGE = _usage("digital_signature", "key_encipherment", "data_encipherment", "key_agreement")
