"""The order on the way out, in its pure parts; the path itself is proven in tests/scenarios."""

from __future__ import annotations

import pytest

from agent.outbound import _refused, server_name
from agent.splice import Ending, Transfer
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


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("heard", [0, 1])
@pytest.mark.parametrize("tls_first", [True, False])
def test_what_counts_as_a_refusal(ending: Ending, heard: int, tls_first: bool) -> None:
    """The TLS side broke off first, and before it had said a byte; an orderly end is none."""
    transfer = Transfer(to_plain=heard, to_tls=10, ending=ending, tls_ended_first=tls_first)
    assert _refused(transfer) is (ending is not Ending.CLEAN and heard == 0 and tls_first)
