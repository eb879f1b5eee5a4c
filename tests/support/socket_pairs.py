"""Sockets and TLS for the data-path tests: loopback pairs, contexts from the test authority."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from certs.bundle import TrustBundle, parse_roots
from certs.contexts import Contexts, build_contexts
from certs.credentials import Credentials
from certs.leaf import parse_leaf
from tests.certs.authority import Issuer, Minted, roots_answer

NOW = datetime.now(UTC)


def bundle_of(*roots: Issuer) -> TrustBundle:
    """Trust in these roots, the first of them active."""
    return parse_roots(roots_answer(*roots))


def contexts_of(minted: Minted, *trusted: Issuer, generation: int = 1) -> Contexts:
    """Contexts that present this leaf, flaws and all: `prove` is left out on purpose."""
    leaf = parse_leaf(minted.cert_pem, minted.key_pem)
    return build_contexts(Credentials(leaf=leaf, bundle=bundle_of(*trusted)), generation)


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A non-blocking listening socket on a port of the kernel's choice."""
    sock = socket.create_server((host, 0), backlog=1024)
    sock.setblocking(False)
    return sock


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two non-blocking ends of one loopback TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far
