"""The name that a connection asks for, and whether a handshaken peer is the service that must answer."""

from __future__ import annotations

from datetime import datetime

from OpenSSL import SSL

from agent.base.latest import Latest
from agent.net.handshake import verified_chain
from agent.outbound.reasons import NotServed, OutboundReason
from agent.policy.deny_list import NO_ENTRIES, DenyList
from certs.contexts import Contexts
from certs.peer import Peer, verify_peer
from certs.spiffe import DEFAULT, TrustDomain
from upstreams.endpoints import ExpectedIdentity


def identify(
    tls: SSL.Connection,
    expected: ExpectedIdentity,
    credentials: Latest[Contexts],
    at: datetime,
    deny_list: Latest[DenyList],
) -> Peer:
    """Return the peer if it is the service that the endpoint must be, by the present roots.

    Raises PeerRejected, NotServed.
    """
    current = credentials.value
    assert current is not None  # the handshake used it; a published value is never taken back
    bundle = current.credentials.bundle
    peer = verify_peer(verified_chain(tls), bundle, at)
    if not expected.matches(peer.id):
        detail = f"expected spiffe://{bundle.trust_domain}{expected}, it is {peer.id}"
        raise NotServed(OutboundReason.WRONG_IDENTITY, detail)
    denied = (deny_list.value or NO_ENTRIES).objection(peer)
    if denied:
        raise NotServed(OutboundReason.DENY_LISTED, f"{peer.id}: {denied}")
    return peer


def server_name(expected: ExpectedIdentity, trust_domain: TrustDomain) -> str:
    """Return the SNI by which a mesh gateway finds the service; others ignore it (docs/consul-api.md#sni)."""
    if expected.partition == DEFAULT:
        return f"{expected.service}.{expected.namespace}.{expected.datacenter}.internal.{trust_domain}"
    names = (expected.service, expected.namespace, expected.partition, expected.datacenter)
    return f"{'.'.join(names)}.internal-v1.{trust_domain}"
