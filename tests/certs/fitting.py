"""What the tests of certs build over and over: bundles, leaves, credentials, and a handshake in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from OpenSSL import SSL

from certs.bundle import TrustBundle, parse_roots
from certs.contexts import Contexts, build_contexts
from certs.credentials import Credentials, prove
from certs.leaf import Leaf, parse_leaf
from tests.certs.authority import TRUST_DOMAIN, Issuer, Minted, der, key_pem, new_key, roots_answer
from tests.recorded import body

AT = datetime(2031, 5, 17, 12, 0, tzinfo=UTC)
RECORDED_AT = datetime(
    2026, 11, 22, 21, 15, tzinfo=UTC
)  # the evening of the recordings, after both rotations


def root(trust_domain: str = TRUST_DOMAIN) -> Issuer:
    """A root issuing at AT."""
    return Issuer.root(trust_domain, now=AT)


def bundle(active: Issuer, *retiring: Issuer) -> TrustBundle:
    return parse_roots(roots_answer(active, *retiring))


def leaf_of(minted: Minted) -> Leaf:
    return parse_leaf(minted.cert_pem, minted.key_pem)


def credentials(minted: Minted, trust: TrustBundle, at: datetime = AT) -> Credentials:
    """Proven credentials for whatever service the leaf names."""
    leaf = leaf_of(minted)
    return prove(leaf, trust, service=leaf.id.service, datacenter=leaf.id.datacenter, at=at)


def unproven_contexts(minted: Minted, trust: TrustBundle) -> Contexts:
    """Contexts of a flawed peer: what nothing in the agent would make."""
    return build_contexts(Credentials(leaf=leaf_of(minted), bundle=trust), generation=1)


def recorded_bundle(name: str, *kept: int) -> TrustBundle:
    """A recorded roots answer; with `kept`, only the roots at these places counted from the oldest."""
    full = parse_roots(body(name))
    ages = sorted(full.roots, key=lambda root: root.not_before)
    return replace(full, roots=tuple(ages[i] for i in kept)) if kept else full


def recorded_leaf(name: str) -> Leaf:
    """A recorded leaf with a key that is not its own: the recording's key is blanked."""
    return parse_leaf(body(name)["CertPEM"], key_pem(new_key()))


def handshake(server: SSL.Context, client: SSL.Context) -> tuple[SSL.Connection, SSL.Connection]:
    """Run a handshake over memory to its end; raise what OpenSSL raises at either end."""
    ends = (SSL.Connection(server, None), SSL.Connection(client, None))
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for _ in range(5):
        for here, there in (ends, ends[::-1]):
            try:
                here.do_handshake()
            except SSL.WantReadError:
                pass
            finally:
                _carry(here, there)
    return ends


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    while True:
        try:
            target.bio_write(source.bio_read(65536))
        except SSL.WantReadError:
            return


def verified_der(connection: SSL.Connection) -> tuple[bytes, ...]:
    """The chain that end has verified: the peer's leaf first, the root last."""
    chain = connection.get_verified_chain(as_cryptography=True)
    assert chain is not None
    return tuple(map(der, chain))
