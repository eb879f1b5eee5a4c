"""How a connection to an endpoint travels: in a tunnel, or by one of its own, and why.

`travel` is the one rule. A connection is dialled by it, and `sidecar ping`, `sidecar explain` and `/status`
tell it. What it cannot know, whether the far side keeps its offer, is asked of `TunnelStanding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from upstreams.endpoints import Endpoint, ExpectedIdentity
from upstreams.reach import DialAddress
from upstreams.spec import TunnelMode, Upstream


class TravelReason(StrEnum):
    """Why a connection travels in a tunnel or by one of its own."""

    TUNNEL = "tunnel"
    NEVER = "tunnel_never"  # our setting, for all upstreams
    NEVER_HERE = "tunnel_never_here"  # our setting, for this upstream
    GATEWAY = "behind_mesh_gateway"
    NO_OFFER = "no_tunnel_offer"
    REFUSED = "no_tunnels"  # the name that the far side has for it
    FULL = "tunnels_full"


_SAYS = {
    TravelReason.NEVER: "our setting `tunnel` is never",
    TravelReason.NEVER_HERE: "our setting `tunnel` is never for this upstream",
    TravelReason.GATEWAY: "a mesh gateway is on the way, and finds the service by the SNI",
    TravelReason.NO_OFFER: "its registration has no connect_sidecar_tunnel",
    TravelReason.REFUSED: "it offers tunnels, and takes none",
    TravelReason.FULL: "no tunnel to it takes another stream",
}


@dataclass(frozen=True, slots=True)
class Travel:
    """The reason, and with `no_tunnels` in how many seconds the far side is asked again."""

    reason: TravelReason
    again_seconds: float | None = None

    @property
    def in_tunnel(self) -> bool:
        """Whether a connection is a stream of a tunnel."""
        return self.reason is TravelReason.TUNNEL

    def __str__(self) -> str:
        if self.in_tunnel:
            return "in a tunnel"
        again = "" if self.again_seconds is None else f"; asked again in {self.again_seconds:.0f} s"
        return f"a connection each: {_SAYS[self.reason]} ({self.reason.value}){again}"


IN_TUNNEL = Travel(TravelReason.TUNNEL)
_EACH = {reason: Travel(reason) for reason in TravelReason}


class TunnelStanding(Protocol):
    """What is known of the tunnels to an endpoint that offers them."""

    def standing(self, expected: ExpectedIdentity, dialling: DialAddress, /) -> Travel:
        """Return whether a stream may begin there, or a tunnel for it may be made."""


def may_tunnel(upstream: Upstream, usual: TunnelMode, endpoint: Endpoint, *, through_gateway: bool) -> Travel:
    """Return what settings and registration say. `usual` is the agent's mode for all upstreams.

    A gateway passes TLS on by the SNI, which is the service's own there, so it cannot be that of a tunnel.
    """
    if (upstream.tunnel or usual) is TunnelMode.NEVER:
        return _EACH[TravelReason.NEVER if upstream.tunnel is None else TravelReason.NEVER_HERE]
    if through_gateway:
        return _EACH[TravelReason.GATEWAY]
    return IN_TUNNEL if endpoint.tunnels else _EACH[TravelReason.NO_OFFER]


def travel(
    allowed: Travel, endpoint: Endpoint, dialling: DialAddress, tunnels: TunnelStanding | None
) -> Travel:
    """Return how connections to that endpoint travel now; `allowed` is the answer of `may_tunnel`."""
    if tunnels is None or not allowed.in_tunnel:
        return allowed
    return tunnels.standing(endpoint.expected, dialling)
