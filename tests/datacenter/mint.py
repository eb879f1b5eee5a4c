"""A primary and a secondary authority in memory, and three verifiers that are not ours.

one = Primary(); dc2 = Secondary(one); leaf = dc2.leaf("db")
one.rotate(); dc2.follow()
assert not refusals(leaf, dc2.trust.roots)
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.spiffe import ServiceId, TrustDomain
from datacenter.ca.certificates import (
    Signer,
    certificate_pem,
    cross_sign,
    intermediate_request,
    make_root,
    sign_intermediate,
    sign_leaf,
)
from datacenter.ca.keys import DEFAULT_KIND, KeyKind, SigningKey, generate_key, key_pem
from datacenter.ca.trust import Root, Trust, new_root, rotated, signed
from tests.datacenter.verifiers import named

TRUST_DOMAIN = TrustDomain("11111111-2222-3333-4444-555555555555.consul")
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
YEAR = timedelta(hours=8760)


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedLeaf:
    """A leaf as it is handed out: its text with what travels along, and its key."""

    cert_pem: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def chain(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.cert_pem.encode())


class Authority:
    """What primary and secondary have in common: they sign leaves."""

    trust: Trust
    key: SigningKey
    datacenter: str
    serial = 1

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    @property
    def signer(self) -> Signer:
        return Signer(certificate=self.trust.active.signing_certificate, key=self.key)

    def leaf(self, service: str = "web", *, at: datetime = NOW, ttl: timedelta = 72 * HOUR) -> MintedLeaf:
        key = ec.generate_private_key(ec.SECP256R1())
        identity = ServiceId(
            trust_domain=self.trust.trust_domain, datacenter=self.datacenter, service=service
        )
        certificate = sign_leaf(
            key.public_key(), self.signer, identity=identity, serial=self.next_serial(), at=at, ttl=ttl
        )
        text = "".join([certificate_pem(certificate), *self.trust.active.intermediates])
        return MintedLeaf(cert_pem=text, key=key)


class Primary(Authority):
    """A root authority."""

    def __init__(self, kind: KeyKind = DEFAULT_KIND, *, at: datetime = NOW) -> None:
        self.datacenter = "dc1"
        self.key = generate_key(kind)
        root = make_root(self.key, trust_domain=TRUST_DOMAIN, serial=1, uid="first000", at=at)
        self.trust = Trust(trust_domain=TRUST_DOMAIN, roots=(new_root(certificate_pem(root)),))

    def rotate(self, kind: KeyKind = DEFAULT_KIND, *, at: datetime = NOW) -> None:
        key, old = generate_key(kind), self.signer
        uid = f"next{self.serial:04d}"
        root = make_root(key, trust_domain=TRUST_DOMAIN, serial=self.next_serial(), uid=uid, at=at)
        bridge = cross_sign(root, old, serial=self.next_serial(), at=at)
        successor = new_root(certificate_pem(root), bridges=[certificate_pem(bridge)])
        self.trust, self.key = rotated(self.trust, successor, at), key

    def sign(self, request: x509.CertificateSigningRequest, *, at: datetime = NOW) -> x509.Certificate:
        return sign_intermediate(
            request,
            self.signer,
            trust_domain=self.trust.trust_domain,
            serial=self.next_serial(),
            at=at,
            ttl=YEAR,
        )


class Secondary(Authority):
    """An authority with an intermediate of the primary's."""

    def __init__(self, primary: Primary, kind: KeyKind = DEFAULT_KIND, *, at: datetime = NOW) -> None:
        self.datacenter = "dc2"
        self._primary = primary
        self._joined = False
        self.follow(kind, at=at)

    def follow(self, kind: KeyKind = DEFAULT_KIND, *, at: datetime = NOW) -> None:
        key = generate_key(kind)
        theirs = self._primary.trust
        request = intermediate_request(key, trust_domain=theirs.trust_domain)
        intermediate = certificate_pem(self._primary.sign(request, at=at))
        self.trust = signed(self.trust if self._joined else None, theirs, intermediate, at)
        self.key, self._joined = key, True


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def external_root(
    key: SigningKey,
    *,
    ca: bool = True,
    path_length: int | None = None,
    issuer_key: SigningKey | None = None,
    constraints: bool = True,
    begin: datetime = NOW - HOUR,
    key_id: bool = False,
) -> x509.Certificate:
    """A root as another tool would make it: another name, no SAN.

    With `key_id` it has a key identifier and key usages, without which strict verifiers take no authority.
    """
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Corp Root")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + YEAR)
    )
    if constraints:
        length = path_length if ca else None
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
    if key_id:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False).add_extension(_CA_USAGE, critical=True)
    return builder.sign(issuer_key or key, hashes.SHA256())


def refusals(leaf: MintedLeaf, roots: Iterable[Root]) -> dict[str, str]:
    """What each verifier has against the leaf, given these roots; the `openssl` command if it is there."""
    pems = [root.pem for root in roots]
    verdicts = {"ssl": _ask_ssl(leaf, pems)}
    if named(leaf.chain):
        verdicts["cryptography"] = _ask_cryptography(leaf, pems)
    if shutil.which("openssl"):
        verdicts["openssl"] = _ask_openssl(leaf, pems)
    return {verifier: complaint for verifier, complaint in verdicts.items() if complaint}


def _ask_cryptography(leaf: MintedLeaf, pems: Sequence[str]) -> str:
    store = Store([x509.load_pem_x509_certificate(pem.encode()) for pem in pems])
    certificate, *others = leaf.chain
    try:
        PolicyBuilder().store(store).build_client_verifier().verify(certificate, others)
    except VerificationError as error:
        return str(error)
    return ""


def _ask_openssl(leaf: MintedLeaf, pems: Sequence[str]) -> str:
    certificate, *others = leaf.chain
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "leaf").write_text(certificate_pem(certificate))
        (folder / "others").write_text("".join(map(certificate_pem, others)))
        (folder / "roots").write_text("".join(pems))
        purpose: list[str | Path] = [
            *(("-x509_strict",) if named(leaf.chain) else ()),
            "-purpose",
            "sslserver",
            "-CAfile",
            folder / "roots",
            "-no-CApath",
        ]
        untrusted: list[str | Path] = ["-untrusted", folder / "others"] if others else []
        done = subprocess.run(
            ["openssl", "verify", *purpose, *untrusted, folder / "leaf"],
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _ask_ssl(leaf: MintedLeaf, pems: Sequence[str]) -> str:
    """Mutual TLS with the standard library: both ends present the leaf, exactly as it was handed out."""
    server, client = (
        _context(ssl.PROTOCOL_TLS_SERVER, leaf, pems),
        _context(ssl.PROTOCOL_TLS_CLIENT, leaf, pems),
    )
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server),
    ]
    try:
        for _ in range(4):
            for end in ends:
                _step(end)
    except ssl.SSLError as error:
        return str(error)
    return ""


def _step(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
        end.read(1)  # a TLS 1.3 client learns of its refusal only here
    except ssl.SSLWantReadError:
        return


def _context(protocol: int, leaf: MintedLeaf, pems: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata="".join(pems))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "chain").write_text(leaf.cert_pem + key_pem(leaf.key))
        context.load_cert_chain(Path(name) / "chain")
    return context
