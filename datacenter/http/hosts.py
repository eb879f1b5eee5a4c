"""Decides by which names the API may be asked, so that requests by other names are refused (DNS rebinding).

An attacker's page has a name that first leads to the attacker's server and then to this one; the browser
sends that name as Host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from datacenter.state.settings import Settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def own_hosts(settings: Settings) -> frozenset[str]:
    """Return the names the settings give this datacenter: its addresses, `http_hosts`, and loopback."""
    advertised = urlsplit(settings.advertise_addr).hostname or ""
    given = (*settings.http_hosts, advertised, settings.node_address, settings.node_wan_address)
    return _LOOPBACK | {host_of(host) for host in given if host}


def host_of(text: str) -> str:
    """Return the host of a Host field without its port (RFC 9110 §7.2), in the spelling that is compared."""
    if text.startswith("["):
        name = text[1:].partition("]")[0]
    else:
        name = text if text.count(":") > 1 else text.partition(":")[0]
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name.rstrip(".").lower()
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
