"""PROXY protocol, version 2: gives the app the caller's identity before the first byte. No effects.

After the addresses of caller and public listener come two of the specification's type-length-values:

* PP2_TYPE_SSL (0x20), as from any TLS terminator: a verified client certificate was presented on this
  connection; with the TLS version (0x21), the cipher suite (0x23), and the caller's SPIFFE ID as the common
  name (0x22), the one name of a peer that readers of this header usually show;
* 0xE0, of the range for applications: the caller's SPIFFE ID again, for readers that want exactly the URI.

https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, sections 2.2 and 2.2.5.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from certs.spiffe import ServiceId

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SPIFFE_ID = 0xE0

_VERSION_2_PROXY = 0x21
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_SSL, _SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x20, 0x21, 0x22, 0x23
_OVER_SSL, _CERT_ON_CONNECTION, _CERT_IN_SESSION = 0x01, 0x02, 0x04
_VERIFIED = 0

Place = tuple[IPv4Address | IPv6Address, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What the header says of a caller; the places are None unless both ends are TCP."""

    caller: ServiceId
    tls_version: str
    cipher: str
    source: Place | None = None
    destination: Place | None = None


def header(introduction: Introduction) -> bytes:
    """Return the complete header, to be sent first."""
    identity = str(introduction.caller).encode()
    ssl = struct.pack("!BI", _OVER_SSL | _CERT_ON_CONNECTION | _CERT_IN_SESSION, _VERIFIED)
    ssl += _value(_SSL_VERSION, introduction.tls_version.encode())
    ssl += _value(_SSL_CN, identity) + _value(_SSL_CIPHER, introduction.cipher.encode())
    family, addresses = _addresses(introduction.source, introduction.destination)
    rest = addresses + _value(_SSL, ssl) + _value(SPIFFE_ID, identity)
    return SIGNATURE + struct.pack("!BBH", _VERSION_2_PROXY, family, len(rest)) + rest


def places(sock: socket.socket) -> tuple[Place | None, Place | None]:
    """Return both ends of an accepted socket, the caller's first.

    None for one that is not TCP or has gone.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return None, None
    try:
        return _place(sock.getpeername()), _place(sock.getsockname())
    except OSError:  # reset already; the next write fails
        return None, None


def _place(name: tuple[str, int]) -> Place:
    """Return address and port; an IPv4 caller of a listener for both families counts as IPv4."""
    address = ip_address(name[0].partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, name[1]


def _addresses(source: Place | None, destination: Place | None) -> tuple[int, bytes]:
    if source is None or destination is None or source[0].version != destination[0].version:
        return _UNSPEC, b""
    family = _TCP4 if source[0].version == 4 else _TCP6
    return family, source[0].packed + destination[0].packed + struct.pack("!HH", source[1], destination[1])


def _value(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value
