"""One inbound connection, from top to bottom: handshake, identity, intention, and only then our app.

Whoever is refused has cost the app nothing: it is dialled after the verdict, never before.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from OpenSSL import SSL

from agent.handshake import HandshakeFailed, HandshakeReason, server_handshake, verified_chain
from agent.intentions import Intentions, authorize
from agent.latest import Latest
from agent.ledger import Connection, Direction, Ledger
from agent.legs import DialFailed, dial, dismiss, part, remote, tune
from agent.registration import Address
from agent.relay import Relay
from agent.splice import Ending
from certs.contexts import Contexts
from certs.peer import Peer, PeerRejected, verify_peer

Clock = Callable[[], datetime]


class InboundReason(StrEnum):
    """Why nobody can be let in just now."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    NO_INTENTIONS_YET = "no_intentions_yet"


class Denied(Exception):
    """The caller is who it says, and is not let in: `reason` is a VerdictReason or an InboundReason."""

    def __init__(self, reason: StrEnum, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


async def serve_inbound(
    sock: socket.socket,
    *,
    contexts: Latest[Contexts],
    intentions: Latest[Intentions],
    app: Address,
    relay: Relay,
    ledger: Ledger,
    clock: Clock,
    handshake_timeout: float,
    connect_timeout: float,
) -> None:
    """Serve one accepted, non-blocking socket to its end, and close it. Times in seconds."""
    plain: socket.socket | None = None
    ending: Ending | None = None
    try:
        with ledger.open(Direction.INBOUND, remote(sock)) as connection:
            try:
                tune(sock)
                tls = await _handshake(sock, contexts, handshake_timeout)
                connection.peer = _identify(tls, contexts, clock())
                _authorize(intentions.value, connection.peer)
                plain = await dial(app, connect_timeout)
                connection.dialled = str(app)
                connection.relaying()
                transfer = await relay.run(plain, tls, connection.progress)
                connection.end(transfer.ending, transfer.detail)
                ending = transfer.ending
            except (HandshakeFailed, PeerRejected, Denied, DialFailed) as refusal:
                _refuse(sock, refusal, connection, ledger)
    finally:
        part(plain, sock, ending)


async def _handshake(sock: socket.socket, contexts: Latest[Contexts], deadline: float) -> SSL.Connection:
    current = contexts.value
    if current is None:
        raise Denied(InboundReason.NO_CREDENTIALS_YET, "there is no certificate to answer with yet")
    return await server_handshake(sock, current.server, deadline)


def _identify(tls: SSL.Connection, contexts: Latest[Contexts], at: datetime) -> Peer:
    """Who the caller is, by the roots of this moment: they may have changed during the handshake."""
    current = contexts.value
    assert current is not None  # a published value is replaced, never taken back
    return verify_peer(verified_chain(tls), current.credentials.bundle, at)


def _authorize(intentions: Intentions | None, peer: Peer) -> None:
    if intentions is None:
        raise Denied(InboundReason.NO_INTENTIONS_YET, f"{peer.id}: intentions are not known yet")
    verdict = authorize(intentions, peer.id)
    if not verdict.allowed:
        raise Denied(verdict.reason, f"{peer.id}: {verdict.rule}")


def _refuse(
    sock: socket.socket,
    refusal: HandshakeFailed | PeerRejected | Denied | DialFailed,
    connection: Connection,
    ledger: Ledger,
) -> None:
    if refusal.reason is HandshakeReason.PROBE:
        ledger.probe(connection)
    else:
        connection.end(refusal.reason, refusal.detail)
    dismiss(sock)
