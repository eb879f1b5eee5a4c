"""The PROXY protocol header, byte by byte, and read by a parser written from the specification's figures."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from agent.net.proxy_protocol import SPIFFE_ID, Introduction, Place, header, places
from certs.spiffe import ServiceId, TrustDomain
from tests.support.socket_pairs import tcp_pair

WEB = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service="web")
URI = b"spiffe://x.consul/ns/default/dc/dc1/svc/web"


def place(host: str, port: int) -> Place:
    return ip_address(host), port


def told(source: Place | None = None, destination: Place | None = None) -> Introduction:
    return Introduction(
        caller=WEB, tls_version="TLSv1.3", cipher="TLS_A", source=source, destination=destination
    )


def values(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, length = struct.unpack_from("!BH", data)
        found[kind], data = data[3 : 3 + length], data[3 + length :]
    return found


def test_the_bytes_of_an_ipv4_caller() -> None:
    made = header(told(place("10.0.0.9", 40000), place("10.0.0.1", 21000)))
    assert made[:16] == bytes.fromhex("0d0a0d0a000d0a515549540a 21 11") + struct.pack("!H", len(made) - 16)
    assert made[16:28] == bytes([10, 0, 0, 9, 10, 0, 0, 1]) + struct.pack("!HH", 40000, 21000)
    outer = values(made[28:])
    assert outer.keys() == {0x20, 0xE0}
    assert outer[SPIFFE_ID] == URI
    client, verify = struct.unpack_from("!BI", outer[0x20])
    assert (client, verify) == (0x07, 0)
    assert values(outer[0x20][5:]) == {0x21: b"TLSv1.3", 0x22: URI, 0x23: b"TLS_A"}


def test_ipv6() -> None:
    made = header(told(place("2001:db8::9", 1), place("2001:db8::1", 2)))
    assert made[13] == 0x21
    assert made[16:52] == ip_address("2001:db8::9").packed + ip_address("2001:db8::1").packed + b"\0\1\0\2"
    assert values(made[52:])[SPIFFE_ID] == URI


@pytest.mark.parametrize(
    ("source", "destination"),
    [(None, None), (place("10.0.0.9", 1), None), (place("10.0.0.9", 1), place("::1", 1))],
)
def test_addresses_that_are_not_known_are_not_told(source: Place | None, destination: Place | None) -> None:
    made = header(told(source, destination))
    assert made[12:14] == bytes([0x21, 0x00])
    assert values(made[16:])[SPIFFE_ID] == URI


def test_the_ends_of_a_socket() -> None:
    near, far = tcp_pair()
    with near, far:
        assert places(far) == (place(*near.getsockname()), place(*far.getsockname()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert places(ours) == (None, None)
    with socket.socket() as alone:
        assert places(alone) == (None, None)


def test_an_ipv4_caller_of_a_listener_for_both_families() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as near,
    ):
        far, _ = listener.accept()
        with far:
            assert places(far)[0] == place(*near.getsockname())
