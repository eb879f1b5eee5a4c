"""Handshakes in memory between what two sidecars have in force; no socket, no clock of the kernel's."""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from certs.contexts import Contexts
from certs.peer import Peer, verify_peer
from tests.support.credentials_keeper import START


def shake(
    client: Contexts, server: Contexts, at: datetime = START, newest: Contexts | None = None
) -> tuple[Peer, Peer]:
    """Whom the client and whom the server has seen; raises what fails.

    `newest`: what both have in force when the handshake ends, if they began it with something older.
    """
    ours, theirs = SSL.Connection(client.client, None), SSL.Connection(server.server, None)
    ours.set_connect_state()
    theirs.set_accept_state()
    done = {ours: False, theirs: False}
    for _ in range(10):
        for end, other in ((ours, theirs), (theirs, ours)):
            if not done[end]:
                done[end] = _step(end)
            _carry(end, other)
        if all(done.values()):
            return _peer(ours, newest or client, at), _peer(theirs, newest or server, at)
    raise AssertionError("the handshake does not end")


def _step(end: SSL.Connection) -> bool:
    try:
        end.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _carry(end: SSL.Connection, other: SSL.Connection) -> None:
    try:
        other.bio_write(end.bio_read(1 << 17))
    except SSL.WantReadError:
        return


def _peer(end: SSL.Connection, in_force: Contexts, at: datetime) -> Peer:
    chain = [step.public_bytes(Encoding.DER) for step in end.get_verified_chain(as_cryptography=True) or ()]
    return verify_peer(chain, in_force.credentials.bundle, at)
