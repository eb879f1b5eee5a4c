"""The server name by which mesh gateways find a service."""

from __future__ import annotations

import pytest

from agent.outbound.identify import server_name
from certs.spiffe import TrustDomain
from upstreams.endpoints import ExpectedIdentity

TRUST_DOMAIN = TrustDomain.parse("11111111-2222-3333-4444-555555555555.consul")


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        (ExpectedIdentity(datacenter="dc2", service="db"), "db.default.dc2.internal"),
        (ExpectedIdentity(datacenter="dc2", service="db", namespace="shop"), "db.shop.dc2.internal"),
        (
            ExpectedIdentity(datacenter="dc2", service="db", namespace="shop", partition="east"),
            "db.shop.east.dc2.internal-v1",
        ),
    ],
)
def test_the_server_name_is_the_one_mesh_gateways_route_by(expected: ExpectedIdentity, name: str) -> None:
    assert server_name(expected, TRUST_DOMAIN) == f"{name}.{TRUST_DOMAIN}"
