"""The certificate authority of one datacenter as its store knows it.

Every change is one transaction: the roots, the key that signs under the active one, the configuration and the
serial numbers change together, and a serial is on disk before its certificate is sent. A process that is
killed at any point comes back in one of these states, and nothing else has to be repaired:

- *empty*: no roots, no key. A primary makes its first root at start; a secondary answers `CA has not finished
initializing` until the primary has signed for it. - *signing*: exactly one root is active, and the private
document holds the key of its signing certificate: the root itself in the primary, the newest intermediate in
a secondary. - *signing, and trusting more*: a secondary knows a newer root of the primary, inactive, but has
no intermediate under it (refused or cut off). It signs as before and asks again.

A secondary's new key exists in memory only until its intermediate is installed. If the process is killed in
between, it asks for another intermediate; the first one is useless without its key.

The key leaves its private document only to sign. It is in no table, answer, log line or exception.
"""

from __future__ import annotations

import string
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs.spiffe import InvalidSpiffeId, ServiceId, TrustDomain
from datacenter.ca.certificates import (
    RequestRefused,
    Signer,
    certificate_pem,
    cross_sign,
    make_root,
    serial_hex,
    sign_intermediate,
    sign_leaf,
)
from datacenter.ca.config import (
    CaConfig,
    ConfigRefused,
    handed_in,
    lingering,
    longest_life,
    parse_config,
    starting_config,
)
from datacenter.ca.external_root import successor
from datacenter.ca.keys import InvalidKey, SigningKey, generate_key, key_pem, load_key
from datacenter.ca.trust import (
    ROTATED_OUT_AT,
    Root,
    Trust,
    earlier_bridges,
    new_root,
    root_of_stored,
    rotated,
    stored_root,
)
from datacenter.http.context import Datacenter
from datacenter.http.forward import DATACENTERS, signing_under
from datacenter.state.errors import ApiError

ROOTS = "connect-ca-roots"  # table: root ID -> element of `Roots`, and when it was rotated out
CONFIG = "connect-ca-config"  # table: "config" -> CaConfig.document()
SERIAL = "connect-ca-serial"  # table: "last" -> the newest serial number given out

SIGNER = "connect-ca-signer"  # private document: {"PrivateKey": PEM}
_LINGERING = "Lingering"  # ca_config.lingering
_LEAF_SETTING = "LeafTTLSetting"  # seconds; a changed setting at start overrides the configuration once
_UID = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedLeaf:
    """A leaf as it is handed out. `index`: of the transaction that gave it its serial."""

    certificate: x509.Certificate
    cert_pem: str = field(repr=False)
    key_pem: str = field(repr=False)
    identity: ServiceId
    signing_key_id: str
    index: int

    @property
    def serial(self) -> str:
        """The serial in colon hex; unique only within this datacenter."""
        return serial_hex(self.certificate.serial_number)


def not_initialised() -> ApiError:
    """Return the answer of a secondary that has not joined yet."""
    return ApiError(500, "CA has not finished initializing")


class CertificateAuthority:
    """Reads and changes the store; holds no state, so there may be any number of them."""

    __slots__ = ("_dc", "_store")

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc
        self._store = dc.store

    @property
    def trust(self) -> Trust | None:
        """The trust of this datacenter; None before the first root."""
        rows = self._store.table(ROOTS).rows()
        if not rows:
            return None
        domain = TrustDomain.parse(f"{rows[0].value['ExternalTrustDomain']}.consul")
        return Trust(trust_domain=domain, roots=tuple(root_of_stored(row.value) for row in rows))

    @property
    def config(self) -> CaConfig:
        """The configuration in force."""
        row = self._store.table(CONFIG).get("config")
        if row is None:
            return starting_config(timedelta(seconds=self._dc.settings.leaf_ttl))
        return parse_config(row.value)

    @property
    def leaf_life(self) -> timedelta:
        """The longest life of a leaf of this datacenter that may still be valid."""
        row = self._store.table(CONFIG).get("config")
        older_leaves = row.value.get(_LINGERING, {}) if row else {}
        return longest_life(self.config, older_leaves, self._dc.clock())

    def require_trust(self) -> Trust:
        """Return the trust. Raises ApiError 500 before the first root."""
        trust = self.trust
        if trust is None:
            raise not_initialised()
        return trust

    def signer(self) -> Signer:
        """Return the signing certificate and key. Raises ApiError 500 before there are any."""
        certificate = self.require_trust().active.signing_certificate
        document = self._store.private(SIGNER)
        if document is None:
            raise not_initialised()
        return Signer(certificate=certificate, key=load_key(document["PrivateKey"]))

    def answer(self) -> dict[str, Any]:
        """Return the roots answer of docs/consul-api.md#roots. Raises ApiError 500 before the first root."""
        trust = self.require_trust()
        rows = self._store.table(ROOTS).rows()
        return {
            "ActiveRootID": trust.active.id,
            "TrustDomain": trust.trust_domain.name,
            "Roots": [
                {key: value for key, value in row.value.items() if key != ROTATED_OUT_AT}
                | {"CreateIndex": row.create_index, "ModifyIndex": row.modify_index}
                for row in rows
            ],
        }

    def start(self) -> None:
        """Write the initial configuration, or a leaf lifetime that was changed on the command line.

        In the primary this also makes the first root. A secondary that is started as a primary (its own was
        lost) makes a root of the same trust domain; the path length of its intermediate does not allow a
        cross-signature.
        """
        with self._store.transaction():
            row = self._store.table(CONFIG).get("config")
            if row is None or row.value.get(_LEAF_SETTING) != self._dc.settings.leaf_ttl:
                self._put_config(starting_config(timedelta(seconds=self._dc.settings.leaf_ttl)))
            if self._dc.settings.is_primary:
                self._start_primary()

    def _start_primary(self) -> None:
        trust = self.trust
        if trust is None:
            cluster = uuid.UUID(int=self._dc.rng.getrandbits(128), version=4)
            domain = TrustDomain(f"{cluster}.consul")
            key = generate_key(self.config.kind)
            self._write(Trust(trust_domain=domain, roots=(self._made_root(key, domain),)), key)
        elif trust.active.signing_certificate != trust.active.certificate:
            key = generate_key(self.config.kind)
            successor = self._made_root(key, trust.trust_domain)
            self._write(rotated(trust, successor, self._dc.clock()), key)

    def configure(self, document: Mapping[str, Any]) -> None:
        """Apply a decoded PUT body. A new key rotates the root. Raises ApiError 500 in Consul's words."""
        try:
            config = parse_config(document)
            key, root = self._successor(document)
        except ConfigRefused as error:
            raise ApiError(500, str(error)) from error
        except (InvalidKey, RequestRefused) as error:
            raise ApiError(500, f"error configuring provider: {error}") from error
        with self._store.transaction():
            self._put_config(config)
            self._store.touch(ROOTS)  # Consul wakes watchers of unchanged roots too (configchange-*)
            if key is not None:
                self.rotate(key, root)

    def _successor(
        self, document: Mapping[str, Any]
    ) -> tuple[SigningKey, x509.Certificate | None] | tuple[None, None]:
        if not any(handed_in(document)):
            return None, None
        if not self._dc.settings.is_primary:
            raise ConfigRefused(
                "error configuring provider: PrivateKey and RootCert belong to the primary datacenter"
            )
        return successor(document, self.require_trust(), self._dc.clock())

    def rotate(self, key: SigningKey, root: x509.Certificate | None = None) -> None:
        """Make this key's root active, in the primary: the given certificate, or one made here."""
        at = self._dc.clock()
        with self._store.transaction():
            trust, old = self.require_trust(), self.signer()
            if root is None:
                successor = self._made_root(key, trust.trust_domain)
            else:
                successor = new_root(certificate_pem(root))
            if not self.config.force_without_cross_signing and old.certificate.not_valid_after_utc > at:
                bridge = cross_sign(successor.certificate, old, serial=self._next_serial(), at=at)
                rows = self._store.table(DATACENTERS).rows()
                lagging = any(not signing_under(row.value) <= {trust.active.id} for row in rows)
                bridges = [certificate_pem(bridge), *earlier_bridges(trust, at, lagging=lagging)]
                successor = new_root(successor.pem, bridges=bridges)
            self._write(rotated(trust, successor, at), key)

    def install(self, trust: Trust, key: SigningKey) -> None:
        """Install a secondary's new intermediate with its key, and all roots that come with it."""
        self._write(trust, key)

    def trust_more(self, trust: Trust) -> None:
        """Install a secondary's roots without a new intermediate."""
        if trust != self.trust:
            self._write(trust, None)

    def sign_request(self, request: x509.CertificateSigningRequest, ttl: timedelta | None = None) -> str:
        """Sign a secondary's intermediate; return PEM. `ttl` replaces the configured one.

        Raises RequestRefused.
        """
        trust = self.require_trust()
        with self._serial() as serial:
            certificate = sign_intermediate(
                request,
                self.signer(),
                trust_domain=trust.trust_domain,
                serial=serial,
                at=self._dc.clock(),
                ttl=ttl or self.config.intermediate_ttl,
            )
        return certificate_pem(certificate)

    def issue_leaf(self, service: str) -> IssuedLeaf:
        """Issue a new key and certificate for a service, its name verbatim. Raises ApiError 500."""
        root = self.require_trust().active
        identity = self._identity(service)
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            with self._serial() as serial:
                certificate = sign_leaf(
                    key.public_key(),
                    self.signer(),
                    identity=identity,
                    serial=serial,
                    at=self._dc.clock(),
                    ttl=self.config.leaf_ttl,
                )
        except RequestRefused as error:
            raise ApiError(500, f"error signing: {error}") from error
        return IssuedLeaf(
            certificate=certificate,
            cert_pem="".join([certificate_pem(certificate), *root.intermediates]),
            key_pem=key_pem(key),
            identity=identity,
            signing_key_id=root.signing_key_id,
            index=self._store.index_of((SERIAL,)),
        )

    def new_uid(self) -> str:
        """Return what distinguishes the names of CA certificates."""
        return "".join(self._dc.rng.choices(_UID, k=8))

    def _identity(self, service: str) -> ServiceId:
        if not service:
            raise ApiError(500, "URI must be either service or agent")
        try:
            return ServiceId(
                trust_domain=self.require_trust().trust_domain,
                datacenter=self._dc.settings.name,
                service=service,
            )
        except InvalidSpiffeId as error:
            raise ApiError(500, f"invalid service name: {error}") from error

    def _made_root(self, key: SigningKey, trust_domain: TrustDomain) -> Root:
        root = make_root(
            key,
            trust_domain=trust_domain,
            serial=self._next_serial(),
            uid=self.new_uid(),
            at=self._dc.clock(),
        )
        return new_root(certificate_pem(root))

    def _write(self, trust: Trust, key: SigningKey | None) -> None:
        """Write all roots, each with the new index as in Consul, and with them the signing key."""
        table = self._store.table(ROOTS)
        with self._store.transaction():
            for row in table.rows():
                if trust.find(row.key) is None:
                    table.delete(row.key)
            for root in trust.roots:
                table.put(root.id, stored_root(root, trust.trust_domain))
            if key is not None:
                self._store.put_private(SIGNER, {"PrivateKey": key_pem(key)})

    def _put_config(self, config: CaConfig) -> None:
        row = self._store.table(CONFIG).get("config")
        before, older_leaves = (self.config, row.value.get(_LINGERING, {})) if row else (None, {})
        beside = {
            _LEAF_SETTING: self._dc.settings.leaf_ttl,
            _LINGERING: lingering(before, older_leaves, config, self._dc.clock()),
        }
        self._store.table(CONFIG).put("config", config.document() | beside)

    @contextmanager
    def _serial(self) -> Iterator[int]:
        """Yield a serial number, which is given back if the certificate is refused."""
        with self._store.transaction():
            yield self._next_serial()

    def _next_serial(self) -> int:
        table = self._store.table(SERIAL)
        row = table.get("last")
        serial = 1 if row is None else int(row.value["Serial"]) + 1
        table.put("last", {"Serial": serial})
        return serial
