"""How a connection travels: each reason by itself, and which one is told where several hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.two_sidecars import endpoint
from upstreams.endpoints import Endpoint, ExpectedIdentity
from upstreams.reach import DialAddress, ReachReason
from upstreams.spec import TunnelMode, Upstream, parse_upstream_flag
from upstreams.travel import IN_TUNNEL, Travel, TravelReason, may_tunnel, travel

AUTO, NEVER = TunnelMode.AUTO, TunnelMode.NEVER
OFFERS, SILENT = replace(endpoint(1), tunnels=True), endpoint(1)
REFUSED = Travel(TravelReason.REFUSED, 41.6)


def upstream(mode: TunnelMode | None = None) -> Upstream:
    return replace(parse_upstream_flag("db:9191"), tunnel=mode)


class Far:
    """What is known of the far side."""

    def standing(self, _expected: ExpectedIdentity, _dialling: DialAddress, /) -> Travel:
        return REFUSED


@pytest.mark.parametrize(
    ("here", "usual", "to", "gateway", "reason"),
    [
        (None, AUTO, OFFERS, False, TravelReason.TUNNEL),
        (AUTO, NEVER, OFFERS, False, TravelReason.TUNNEL),
        (None, NEVER, OFFERS, False, TravelReason.NEVER),
        (NEVER, AUTO, OFFERS, False, TravelReason.NEVER_HERE),
        (NEVER, NEVER, SILENT, True, TravelReason.NEVER_HERE),  # what we can change is told first
        (None, AUTO, OFFERS, True, TravelReason.GATEWAY),
        (None, AUTO, SILENT, True, TravelReason.GATEWAY),
        (None, AUTO, SILENT, False, TravelReason.NO_OFFER),
    ],
)
def test_settings_and_registration_decide(
    here: TunnelMode | None, usual: TunnelMode, to: Endpoint, gateway: bool, reason: TravelReason
) -> None:
    found = may_tunnel(upstream(here), usual, to, through_gateway=gateway)
    assert found == Travel(reason)
    assert found.in_tunnel is (reason is TravelReason.TUNNEL)


def test_the_far_side_is_asked_of_only_where_a_tunnel_is_allowed() -> None:
    at = DialAddress(host="127.0.0.1", port=1, reason=ReachReason.LOCAL_SERVICE)
    assert travel(IN_TUNNEL, OFFERS, at, Far()) is REFUSED
    assert travel(IN_TUNNEL, OFFERS, at, None) is IN_TUNNEL
    silent = may_tunnel(upstream(), AUTO, SILENT, through_gateway=False)
    assert travel(silent, SILENT, at, Far()) is silent


def test_each_reason_is_told_with_its_name() -> None:
    assert str(IN_TUNNEL) == "in a tunnel"
    assert str(REFUSED).endswith("(no_tunnels); asked again in 42 s")
    for reason in set(TravelReason) - {TravelReason.TUNNEL}:
        assert f"({reason.value})" in str(Travel(reason))
