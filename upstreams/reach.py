"""Chooses the address of an endpoint to dial, and says why (docs/consul-api.md#wan-addresses).

An agent with `translate_wan_addrs` rewrites address and port by different rules, and may answer a LAN address
with a WAN port. So both are taken as one pair from the `wan` tag, and never combined from two pairs.
`wan_ipv4` and `wan_ipv6` are ignored, since Consul fills them with the LAN address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from upstreams.endpoints import Endpoint, HostPort
from upstreams.spec import WanMode

_LAN_TAGS = ("lan", "lan_ipv4", "lan_ipv6")


class ReachReason(StrEnum):
    """Why this address is dialled."""

    LOCAL_SERVICE = "local_service_address"
    LOCAL_NODE = "local_node_address"
    WAN_TAG = "wan_tag"
    WAN_TAG_WITHOUT_PORT = "wan_tag_without_port"
    REMOTE_SERVICE = "remote_service_address"
    NODE_WAN_TAG = "node_wan_tag"
    REMOTE_NODE = "remote_node_address"
    LAN_TAG = "lan_tag"


class UnreachableReason(StrEnum):
    """Why there is no address to dial."""

    NO_WAN_ADDRESS = "no_wan_address"
    NO_ADDRESS = "no_address"
    NO_PORT = "no_port"
    BAD_PORT = "bad_port"  # not one of 1 to 65535


class Unreachable(Exception):
    """The endpoint cannot be dialled in this mode; the next candidate is tried."""

    def __init__(self, reason: UnreachableReason, endpoint: Endpoint) -> None:
        super().__init__(f"{reason.value}: {endpoint}")
        self.reason = reason


class AddressWarning(StrEnum):
    """What looks wrong about an address that is dialled all the same."""

    MIXED_PAIR = "mixed_pair"  # the answer has the address of one pair and the port of another
    PRIVATE_ADDRESS = "private_address"  # of another datacenter, without a WAN tag that says it is reachable

    @property
    def avoided(self) -> bool:
        """Whether what is dialled is right all the same; a proxy that takes the answered fields fails."""
        return self is AddressWarning.MIXED_PAIR


@dataclass(frozen=True, slots=True, kw_only=True)
class DialAddress:
    """An address to dial. `host` may be a name."""

    host: str
    port: int
    reason: ReachReason

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({self.reason.value})"


def reach(endpoint: Endpoint, *, own_datacenter: str, wan: WanMode = WanMode.AUTO) -> DialAddress:
    """Choose address and port of an endpoint, as seen from `own_datacenter`. Raises Unreachable."""
    remote = endpoint.datacenter != own_datacenter
    if wan is WanMode.NEVER:
        choice = _lan(endpoint, remote=remote)
    elif remote or wan is WanMode.PREFER:
        choice = _wan(endpoint, remote=remote, required=wan is WanMode.REQUIRE)
    else:
        choice = _as_answered(endpoint, remote=False)
    if not choice.host:
        raise Unreachable(UnreachableReason.NO_ADDRESS, endpoint)
    if not choice.port:
        raise Unreachable(UnreachableReason.NO_PORT, endpoint)
    if not 1 <= choice.port <= 65535:
        raise Unreachable(UnreachableReason.BAD_PORT, endpoint)
    return choice


def doubt(endpoint: Endpoint, dialling: DialAddress) -> AddressWarning | None:
    """Return what looks wrong about the address, if anything."""
    if _is_mixed(endpoint):
        return AddressWarning.MIXED_PAIR
    untold = dialling.reason in {ReachReason.REMOTE_SERVICE, ReachReason.REMOTE_NODE}
    return AddressWarning.PRIVATE_ADDRESS if untold and _is_private(dialling.host) else None


def _is_mixed(endpoint: Endpoint) -> bool:
    """Return whether the answer has the LAN pair's address with the WAN pair's port.

    See docs/consul-api.md#wan-addresses.
    """
    wan = _tag(endpoint, "wan")
    if wan is None or not wan.port:
        return False
    lan = [pair for name in _LAN_TAGS if (pair := _tag(endpoint, name)) is not None]
    return endpoint.port == wan.port and any(
        pair.host == endpoint.service_address != wan.host and pair.port != wan.port for pair in lan
    )


@lru_cache(maxsize=512)  # called for each connection
def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:  # a name
        return False


def _wan(endpoint: Endpoint, *, remote: bool, required: bool) -> DialAddress:
    pair = _tag(endpoint, "wan")
    if pair is not None:
        reason = ReachReason.WAN_TAG if pair.port else ReachReason.WAN_TAG_WITHOUT_PORT
        return DialAddress(host=pair.host, port=pair.port or endpoint.port, reason=reason)
    if endpoint.service_address:
        if required:
            raise Unreachable(UnreachableReason.NO_WAN_ADDRESS, endpoint)
        return _as_answered(endpoint, remote=remote)
    node_wan = endpoint.node_tagged.get("wan")
    if node_wan:
        return DialAddress(host=node_wan, port=endpoint.port, reason=ReachReason.NODE_WAN_TAG)
    if required:
        raise Unreachable(UnreachableReason.NO_WAN_ADDRESS, endpoint)
    return _as_answered(endpoint, remote=remote)


def _lan(endpoint: Endpoint, *, remote: bool) -> DialAddress:
    """Return the LAN tag's address, which undoes a translation; without a tag the answered address."""
    for name in _LAN_TAGS:
        pair = _tag(endpoint, name)
        if pair is not None:
            return DialAddress(host=pair.host, port=pair.port or endpoint.port, reason=ReachReason.LAN_TAG)
    node_lan = endpoint.node_tagged.get("lan")
    if not endpoint.service_address and node_lan:
        return DialAddress(host=node_lan, port=endpoint.port, reason=ReachReason.LAN_TAG)
    return _as_answered(endpoint, remote=remote)


def _as_answered(endpoint: Endpoint, *, remote: bool) -> DialAddress:
    if endpoint.service_address:
        reason = ReachReason.REMOTE_SERVICE if remote else ReachReason.LOCAL_SERVICE
        return DialAddress(host=endpoint.service_address, port=endpoint.port, reason=reason)
    reason = ReachReason.REMOTE_NODE if remote else ReachReason.LOCAL_NODE
    return DialAddress(host=endpoint.node_address, port=endpoint.port, reason=reason)


def _tag(endpoint: Endpoint, name: str) -> HostPort | None:
    pair = endpoint.tagged.get(name)
    return pair if pair is not None and pair.host else None
