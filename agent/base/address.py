"""Where a socket is bound or dialled: a TCP address or the path of a unix socket."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TypeAlias

import msgspec

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - Consul's meaning of a proxy without an address
ANY_ADDRESS_6 = "::"


class TcpAddress(msgspec.Struct, frozen=True, tag=True):
    """A host, by address or name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True, tag=True):
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


def literal(host: str) -> str | None:
    """Return an address in its usual notation, without its zone; None for a name.

    The resolver takes `127.1` and `::ffff:127.0.0.1` for 127.0.0.1, too.
    """
    text = host.partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        try:
            return None if " " in text else socket.inet_ntoa(socket.inet_aton(text))
        except (OSError, ValueError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_local(address: str) -> bool:
    """Return whether this machine has the address: a socket can be bound there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    return True
