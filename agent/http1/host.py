"""What the Host field of a request names, so that names which are not ours can be refused: DNS rebinding.

A page of the attacker's has a name that first leads to the attacker and then to us; the browser sends it as
Host.
"""

from __future__ import annotations

import ipaddress

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(text: str) -> str:
    """The name or address without its port (RFC 9110 §7.2), in the one spelling that is compared."""
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
