"""What a datacenter trusts and signs with, as a value, and every change of it as a function. No effects.

A `Trust` is one trust domain and its roots, exactly one of them active. In the primary the active root's own
key signs leaves; in a secondary the intermediate with the key id `signing_key_id` does. Roots that were
rotated out stay, inactive, until no leaf under them can be valid; an intermediate is in `intermediates` and
is never trusted by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.spiffe import TrustDomain
from datacenter.ca.certificates import BACKDATED, subject_key_id
from datacenter.ca.keys import colon_hex, kind_of

ROOT_NAME = "Consul CA Primary Cert"
ROTATED_OUT_AT = "RotatedOutAt"

MOST_BRIDGES = 6  # rotations that a verifier may miss; verifiers limit the depth of a chain
RECENT = timedelta(minutes=1)  # the longest delay of a handshake under way, or of a watch of the roots


@lru_cache(maxsize=64)
def parse_certificate(pem: str) -> x509.Certificate:
    """Return one certificate, parsed once. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem.encode())


def timestamp(at: datetime) -> str:
    """Return `2026-11-22T20:40:58Z`."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A trusted root as one datacenter lists it. `signing_key_id`: the key that signs leaves here."""

    pem: str
    intermediates: tuple[str, ...] = ()
    signing_key_id: str
    active: bool
    rotated_out_at: datetime | None = None  # when it stopped signing here; not shown

    @property
    def certificate(self) -> x509.Certificate:
        """The root, parsed."""
        return parse_certificate(self.pem)

    @property
    def id(self) -> str:
        """SHA-1 of the DER, colon hex: Consul's name of a root."""
        return colon_hex(self.certificate.fingerprint(hashes.SHA1()))  # noqa: S303  an identifier on the wire

    @property
    def signing_certificate(self) -> x509.Certificate:
        """The certificate that signs leaves here: the root itself, or the intermediate of that key id."""
        for pem in reversed(self.intermediates):
            certificate = parse_certificate(pem)
            if self._signs(certificate) and certificate.public_key() != self.certificate.public_key():
                return certificate
        return self.certificate

    def _signs(self, certificate: x509.Certificate) -> bool:
        return colon_hex(subject_key_id(certificate)) == self.signing_key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """All roots of one trust domain, of which one is active."""

    trust_domain: TrustDomain
    roots: tuple[Root, ...]

    @property
    def active(self) -> Root:
        """The root under which this datacenter signs."""
        return next(root for root in self.roots if root.active)

    def find(self, root_id: str) -> Root | None:
        """Return the root of this ID."""
        return next((root for root in self.roots if root.id == root_id), None)


def new_root(certificate_pem: str, *, bridges: Sequence[str] = ()) -> Root:
    """Return a root whose own key signs, the primary's. `bridges` (PEM) lead to it from earlier roots."""
    return Root(
        pem=certificate_pem,
        intermediates=tuple(bridges),
        signing_key_id=colon_hex(subject_key_id(parse_certificate(certificate_pem))),
        active=True,
    )


def rotated(trust: Trust, successor: Root, at: datetime) -> Trust:
    """Return the trust with another root that signs; the others stay trusted. An old root may return."""
    others = (_retired(root, at) for root in trust.roots if root.id != successor.id)
    return replace(trust, roots=(successor, *others))


def earlier_bridges(trust: Trust, at: datetime, *, lagging: bool) -> list[str]:
    """Return the bridges to the root that a rotation replaces, for verifiers that lag behind it.

    Like Consul, the primary sends the newest bridge alone, with two exceptions. If rotations follow within a
    minute, a handshake may have begun before several of them, so the bridges of the last minute are sent.
    While a datacenter lags behind (`lagging`), all valid ones are sent.
    """
    kept = []
    for pem in trust.active.intermediates:
        bridge = parse_certificate(pem)
        made = bridge.not_valid_before_utc + BACKDATED
        if bridge.not_valid_after_utc > at and (lagging or at - made <= RECENT):
            kept.append(pem)
    return kept[: MOST_BRIDGES - 1]


def pruned(trust: Trust, at: datetime, keep: timedelta, held: Collection[str] = ()) -> Trust:
    """Return the trust without roots rotated out longer than `keep` ago, twice the life of a leaf.

    Roots whose IDs are `held` stay.
    """

    def alive(root: Root) -> bool:
        if root.active or root.id in held:
            return True
        return root.rotated_out_at is None or at - root.rotated_out_at <= keep

    return replace(trust, roots=tuple(root for root in trust.roots if alive(root)))


def followed(ours: Trust, theirs: Trust, at: datetime) -> Trust:
    """Return the trust of a secondary that the primary does not sign yet: more roots, the same signing.

    So a sidecar here learns a new root even while the primary refuses us an intermediate under it. Once the
    primary's active root is known no root is added, since a root that was pruned here must not return.
    """
    if ours.trust_domain != theirs.trust_domain or ours.find(theirs.active.id) is not None:
        return ours
    added = tuple(
        replace(root, active=False, rotated_out_at=None if root.active else at)
        for root in theirs.roots
        if ours.find(root.id) is None
    )
    return replace(ours, roots=(*ours.roots, *added))


def signed(ours: Trust | None, theirs: Trust, intermediate_pem: str, at: datetime) -> Trust:
    """Return the trust of a secondary whose new intermediate the primary has signed.

    Under the same root as before the intermediates grow by one, so that leaves of the previous one still find
    their issuer; expired ones are dropped. Nothing of another trust domain is kept.
    """
    if ours is not None and ours.trust_domain != theirs.trust_domain:
        ours = None
    known = {root.id: root for root in ours.roots} if ours is not None else {}
    active = theirs.active
    before = known.pop(active.id, None)
    earlier = [
        pem
        for pem in (before.intermediates if before else ())
        if pem not in active.intermediates and parse_certificate(pem).not_valid_after_utc > at
    ]
    signer = Root(
        pem=active.pem,
        intermediates=(*active.intermediates, *earlier, intermediate_pem),
        signing_key_id=colon_hex(subject_key_id(parse_certificate(intermediate_pem))),
        active=True,
    )
    others = [_retired(root, at) for root in known.values()]
    others += [
        replace(root, rotated_out_at=at)  # when they did, is by their clock
        for root in theirs.roots
        if not root.active and root.id not in known
    ]
    return Trust(trust_domain=theirs.trust_domain, roots=(signer, *others))


def past_half_life(certificate: x509.Certificate, at: datetime) -> bool:
    """Return whether more than half of the validity has passed: a secondary then renews its intermediate."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return at - begin > (end - begin) / 2


def root_document(root: Root, trust_domain: TrustDomain) -> dict[str, Any]:
    """Return one element of `Roots`, without its indexes.

    See docs/consul-api.md#roots.
    """
    certificate = root.certificate
    kind = kind_of(certificate.public_key())
    return {
        "ID": root.id,
        "Name": ROOT_NAME,
        "SerialNumber": certificate.serial_number,
        "SigningKeyID": root.signing_key_id,
        "ExternalTrustDomain": trust_domain.name.removesuffix(".consul"),
        "NotBefore": timestamp(certificate.not_valid_before_utc),
        "NotAfter": timestamp(certificate.not_valid_after_utc),
        "RootCert": root.pem,
        "IntermediateCerts": list(root.intermediates) or None,
        "Active": root.active,
        "PrivateKeyType": kind.type,
        "PrivateKeyBits": kind.bits,
    }


def root_of_document(document: Mapping[str, Any]) -> Root:
    """Return the root of an element of `Roots`. Raises KeyError, TypeError, ValueError for anything else."""
    pem = str(document["RootCert"])
    kind_of(parse_certificate(pem).public_key())
    intermediates = tuple(str(pem) for pem in document["IntermediateCerts"] or ())
    for intermediate in intermediates:
        parse_certificate(intermediate)
    return Root(
        pem=pem,
        intermediates=intermediates,
        signing_key_id=str(document["SigningKeyID"]),
        active=bool(document["Active"]),
    )


def stored_root(root: Root, trust_domain: TrustDomain) -> dict[str, Any]:
    """Return the root as the store keeps it: `root_document`, and when it was rotated out."""
    at = root.rotated_out_at
    return root_document(root, trust_domain) | {ROTATED_OUT_AT: at.isoformat() if at else None}


def root_of_stored(document: Mapping[str, Any]) -> Root:
    """Return the root of a `stored_root`."""
    at = document[ROTATED_OUT_AT]
    return replace(root_of_document(document), rotated_out_at=datetime.fromisoformat(at) if at else None)


def trust_of_answer(answer: Mapping[str, Any]) -> Trust:
    """Return the trust of a roots answer. Raises KeyError, TypeError, ValueError for anything else."""
    roots = tuple(root_of_document(document) for document in answer["Roots"])
    if sum(root.active for root in roots) != 1:
        raise ValueError("the roots answer does not have exactly one active root")
    return Trust(trust_domain=TrustDomain.parse(str(answer["TrustDomain"])), roots=roots)


def _retired(root: Root, at: datetime) -> Root:
    return replace(root, active=False, rotated_out_at=root.rotated_out_at or at)
