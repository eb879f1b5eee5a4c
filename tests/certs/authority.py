"""A test authority: mints the certificates Consul mints, and every flaw a test asks for.

See docs/consul-api.md#certificates.

    root = Issuer.root()                               # trust domain and validity have defaults
    dc2 = root.intermediate()                          # a secondary's signer, pathlen 0
    leaf = dc2.leaf(service="db", datacenter="dc2")    # Minted: cert_pem (with chain), key_pem, answer()
    roots = roots_answer(root)                         # what /v1/agent/connect/ca/roots would say
    new = Issuer.root(); bridge = root.cross_sign(new) # rotation: new.with_chain(bridge).leaf(...)

Keys are made at run time and live in memory: EC P-256, unless a test asks for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
OTHER_TRUST_DOMAIN = "99999999-8888-7777-6666-555555555555.consul"
BACKDATED = timedelta(minutes=1)
LEAF_TTL = timedelta(hours=72)
BOTH_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def service_uri(service: str, datacenter: str, trust_domain: str = TRUST_DOMAIN) -> str:
    """The service form of docs/consul-api.md#identity."""
    return f"spiffe://{trust_domain}/ns/default/dc/{datacenter}/svc/{service}"


def pem(certificate: x509.Certificate) -> str:
    """PEM text, ending in a newline."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def der(certificate: x509.Certificate) -> bytes:
    """DER bytes."""
    return certificate.public_bytes(serialization.Encoding.DER)


def key_pem(key: Key) -> str:
    """SEC1 text ("EC PRIVATE KEY"), the form Consul hands out; PKCS #1 of an RSA key."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def colon_hex(data: bytes) -> str:
    """`0a:1b:…`, how Consul prints serials, fingerprints and key ids."""
    return ":".join(f"{byte:02x}" for byte in data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A leaf with its key and the extra certificates that travel with it, in sending order."""

    certificate: x509.Certificate
    key: Key
    extra: tuple[x509.Certificate, ...] = ()
    service: str = "web"

    @property
    def cert_pem(self) -> str:
        """`CertPEM`: the leaf first, then the extra certificates."""
        return "".join(pem(certificate) for certificate in (self.certificate, *self.extra))

    @property
    def key_pem(self) -> str:
        """`PrivateKeyPEM`."""
        return key_pem(self.key)

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """DER of what is sent: leaf first. (A verified chain also ends in a root.)"""
        return tuple(der(certificate) for certificate in (self.certificate, *self.extra))

    def answer(self) -> dict[str, object]:
        """What `/v1/agent/connect/ca/leaf/:service` would say."""
        serial = self.certificate.serial_number
        return {
            "SerialNumber": colon_hex(serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big")),
            "CertPEM": self.cert_pem,
            "PrivateKeyPEM": self.key_pem,
            "Service": self.service,
            "ServiceURI": _first_uri(self.certificate),
            "ValidAfter": self.certificate.not_valid_before_utc.isoformat(),
            "ValidBefore": self.certificate.not_valid_after_utc.isoformat(),
            "CreateIndex": 20,
            "ModifyIndex": 20,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA certificate with its key: a root or an intermediate.

    `chain` is appended to every leaf (Consul's IntermediateCerts, in stored order).
    `now` is the moment of issue.
    """

    certificate: x509.Certificate
    key: Key
    trust_domain: str
    now: datetime
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def root(
        cls,
        trust_domain: str = TRUST_DOMAIN,
        *,
        now: datetime | None = None,
        lifetime: timedelta = timedelta(days=3650),
        name: str | None = None,
        key: Key | None = None,
    ) -> Issuer:
        """A self-signed root with the trust domain as its URI SAN."""
        moment = _whole_seconds(now)
        key = key or new_key()
        name = name or _ca_name("pri", key)
        blank = cls(certificate=_PLACEHOLDER, key=key, trust_domain=trust_domain, now=moment)
        certificate = blank._ca_certificate(
            key, name=name, issuer=_name(name), lifetime=lifetime, path_length=None
        )
        return replace(blank, certificate=certificate)

    def at(self, now: datetime) -> Issuer:
        """The same authority, issuing at another moment."""
        return replace(self, now=now)

    def with_chain(self, *chain: x509.Certificate) -> Issuer:
        """The same authority, whose leaves carry these extra certificates."""
        return replace(self, chain=chain)

    def intermediate(
        self,
        *,
        name: str | None = None,
        lifetime: timedelta = timedelta(hours=8760),
        path_length: int | None = 0,
    ) -> Issuer:
        """A secondary's signer; its leaves carry this issuer's own chain, then the intermediate."""
        key = new_key()
        certificate = self._ca_certificate(
            key,
            name=name or _ca_name("sec", key),
            issuer=self.certificate.subject,
            lifetime=lifetime,
            path_length=path_length,
        )
        return replace(self, certificate=certificate, key=key, chain=(*self.chain, certificate))

    def cross_sign(self, other: Issuer, *, lifetime: timedelta = timedelta(days=7)) -> x509.Certificate:
        """The other root's name and key under this root's signature: what bridges a rotation."""
        name = other.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        assert isinstance(name, str)
        return self._ca_certificate(
            other.key, name=name, issuer=self.certificate.subject, lifetime=lifetime, path_length=None
        )

    def leaf(
        self,
        *,
        service: str = "web",
        datacenter: str = "dc1",
        uris: Sequence[str] | None = None,
        dns: Sequence[str] = (),
        usages: Sequence[x509.ObjectIdentifier] | None = BOTH_USAGES,
        ca: bool = False,
        signs: bool = False,
        signs_crls: bool = False,
        bare: bool = False,
        common_name: str | None = "web.svc.default.11111111.consul",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        serial: int = 0x0D,
        key: Key | None = None,
    ) -> Minted:
        """A service's leaf, valid from a minute ago for 72 hours; every parameter is a possible flaw.

        `uris=()` and `dns=()`: no subject alternative name at all. `usages=None`: no extended key usage.
        `ca`: CA:TRUE, `signs`: key usage with keyCertSign, `signs_crls`: with cRLSign; each alone.
        `bare`: names and no other extension at all.
        `common_name=None`: empty subject and critical SAN, as Consul 1.11 and later issue.
        """
        mine = key or new_key()
        names = (service_uri(service, datacenter, self.trust_domain),) if uris is None else tuple(uris)
        since = not_before or self.now - BACKDATED
        until = not_after or since + LEAF_TTL
        builder = _builder(mine, serial=serial, not_before=since, not_after=until)
        builder = builder.subject_name(_name(common_name)).issuer_name(self.certificate.subject)
        if usages is not None and not bare:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if not bare:
            builder = builder.add_extension(
                _key_usage(leaf=True, signs=signs, signs_crls=signs_crls), critical=True
            )
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            builder = builder.add_extension(_authority_key(self.key), critical=False)
        san = [*map(x509.UniformResourceIdentifier, names), *map(x509.DNSName, dns)]
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=common_name is None)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Minted(certificate=certificate, key=mine, extra=self.chain, service=service)

    def _ca_certificate(
        self, key: Key, *, name: str, issuer: x509.Name, lifetime: timedelta, path_length: int | None
    ) -> x509.Certificate:
        since = self.now - BACKDATED
        serial = x509.random_serial_number() >> 96  # up to 64 bits: beyond 2^53, as Consul's may be
        builder = _builder(key, serial=serial | 1 << 60, not_before=since, not_after=since + lifetime)
        builder = builder.subject_name(_name(name)).issuer_name(issuer)
        builder = builder.add_extension(_key_usage(leaf=False, signs=True, signs_crls=True), critical=True)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        )
        builder = builder.add_extension(_authority_key(self.key), critical=False)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}")
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def roots_answer(
    active: Issuer,
    *retiring: Issuer,
    trust_domain: str | None = None,
    intermediates: Sequence[x509.Certificate] = (),
) -> dict[str, object]:
    """What `/v1/agent/connect/ca/roots` would say: the active root first; `intermediates` belong to it."""
    entries = [_root_entry(active, active=True, intermediates=intermediates)]
    entries += [_root_entry(root, active=False, intermediates=()) for root in retiring]
    return {
        "ActiveRootID": entries[0]["ID"],
        "TrustDomain": trust_domain or active.trust_domain,
        "Roots": entries,
    }


def _root_entry(
    root: Issuer, *, active: bool, intermediates: Sequence[x509.Certificate]
) -> dict[str, object]:
    certificate = root.certificate
    return {
        "ID": colon_hex(hashlib.sha1(der(certificate)).digest()),
        "Name": "Consul CA Primary Cert",
        "SerialNumber": certificate.serial_number,
        "SigningKeyID": colon_hex(_key_id(root.key)),
        "ExternalTrustDomain": root.trust_domain.removesuffix(".consul"),
        "NotBefore": certificate.not_valid_before_utc.isoformat(),
        "NotAfter": certificate.not_valid_after_utc.isoformat(),
        "RootCert": pem(certificate),
        "IntermediateCerts": [pem(extra) for extra in intermediates] or None,
        "Active": active,
        "PrivateKeyType": "ec",
        "PrivateKeyBits": 256,
        "CreateIndex": 11,
        "ModifyIndex": 11,
    }


def _builder(key: Key, *, serial: int, not_before: datetime, not_after: datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(public_key=key.public_key(), serial_number=serial)
    builder = builder.not_valid_before(not_before).not_valid_after(not_after)
    return builder.add_extension(x509.SubjectKeyIdentifier(_key_id(key)), critical=False)


def _key_id(key: Key) -> bytes:
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()


def _authority_key(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(_key_id(key), None, None)


def _key_usage(*, leaf: bool, signs: bool, signs_crls: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=leaf,
        data_encipherment=leaf,
        key_agreement=leaf,
        key_cert_sign=signs,
        crl_sign=signs_crls,
        content_commitment=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _ca_name(role: str, key: Key) -> str:
    """Unlike for every key, as Consul's `pri-<uid>` and `sec-<uid>` are."""
    return f"{role}-{_key_id(key).hex()[:8]}.consul.ca.11111111.consul"


def _first_uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def _whole_seconds(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)


def _self_signed_placeholder() -> x509.Certificate:
    """Stands in while a root signs itself; never leaves `Issuer.root`."""
    key, since = new_key(), datetime(2000, 1, 1, tzinfo=UTC)
    builder = _builder(key, serial=1, not_before=since, not_after=since + timedelta(seconds=1))
    return builder.subject_name(_name(None)).issuer_name(_name(None)).sign(key, hashes.SHA256())


_PLACEHOLDER = _self_signed_placeholder()
