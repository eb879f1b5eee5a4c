"""The server name (SNI) that a connection to a service of the mesh sends."""

from __future__ import annotations

from certs.spiffe import DEFAULT, TrustDomain
from upstreams.endpoints import ExpectedIdentity


def server_name(expected: ExpectedIdentity, trust_domain: TrustDomain) -> str:
    """Return the SNI by which a mesh gateway finds the service; others ignore it (docs/consul-api.md#sni)."""
    if expected.partition == DEFAULT:
        return f"{expected.service}.{expected.namespace}.{expected.datacenter}.internal.{trust_domain}"
    names = (expected.service, expected.namespace, expected.partition, expected.datacenter)
    return f"{'.'.join(names)}.internal-v1.{trust_domain}"
