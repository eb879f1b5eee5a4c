"""Serves one inbound connection: handshake, identity, intention, and only then our app.

A connection that its caller has marked as a tunnel (agent.tunnel.sign) is judged stream by stream
(agent.inbound.tunnel).

The app is dialled after the verdict, never before, so a refused caller costs it nothing.

HTTP/1.1 is parsed and judged request by request as soon as an intention for us has permissions, or when the
app is to get the caller's identity (`HttpMode.ALWAYS`). Otherwise its bytes are relayed like any others, at a
multiple of the speed.
"""

from __future__ import annotations

import socket
from functools import partial

from OpenSSL import SSL

from agent.base.latest import Latest
from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import Direction, Party
from agent.inbound.by_request import serve_requests
from agent.inbound.verdict import (
    Admitted,
    Denied,
    Inbound,
    InboundReason,
    ServeTunnel,
    check_deny_list,
    judge,
)
from agent.inbound.verdict import preamble as preamble_of
from agent.net.dial import DialFailed, dial, remote
from agent.net.handshake import (
    HandshakeFailed,
    HandshakeReason,
    Waited,
    server_handshake,
    verified_chain,
)
from agent.relay.close import close_both, close_without_notify
from agent.relay.relay import Relay
from agent.relay.splice import Ending
from agent.relay.streams import TlsStream
from agent.tunnel.sign import is_marked
from certs.contexts import Contexts
from certs.peer import Peer, PeerRejected, verify_peer


async def serve(sock: socket.socket, caller: Admitted | None, inbound: Inbound) -> None:
    """Serve one accepted, non-blocking socket until its end, and close it."""
    plain: socket.socket | None = None
    ending: Ending | None = None
    try:
        with inbound.ledger.open(Direction.INBOUND, remote(sock)) as connection:
            connection.queue_seconds = 0.0 if caller is None else caller.waited
            try:
                tls = await _handshake(sock, caller, connection, inbound)
                connection.shook_hands(tls)
                if caller is not None:
                    caller.settle()
                peer = connection.peer = _identify(tls, inbound)
                check_deny_list(peer, inbound.deny_list)
                preamble = preamble_of(sock, tls, peer) if inbound.proxy_protocol else b""
                if _is_tunnel(tls, connection):
                    serve_tunnel = _tunnels(inbound)
                    await serve_tunnel(
                        sock, tls, inbound, caller=caller, connection=connection, preamble=preamble
                    )
                    return
                connection.handling = judge(connection, peer, inbound)
                if connection.handling is Handling.BY_REQUEST:
                    stream = TlsStream(tls, sock, connection.progress)
                    ending = await serve_requests(stream, connection, preamble, inbound)
                else:
                    connection.lap()
                    plain = await dial(inbound.app, inbound.connect_timeout, preamble, inbound.shun)
                    connection.connect_seconds = connection.lap()
                    connection.dialled = str(inbound.app)
                    ending = await _relay(plain, tls, connection, inbound.relay)
            except (HandshakeFailed, PeerRejected, Denied, DialFailed) as refusal:
                _refuse(sock, refusal, connection, inbound.ledger)
    finally:
        close_both(plain, sock, ending)


async def _handshake(
    sock: socket.socket, caller: Waited | None, connection: Connection, inbound: Inbound
) -> SSL.Connection:
    current = inbound.credentials.value
    if current is None:
        raise Denied(InboundReason.NO_CREDENTIALS_YET, "there is no certificate to answer with yet")
    fault = current.credentials.fault(inbound.clock())
    if fault is not None:
        raise Denied(InboundReason(fault[0].value), fault[1])
    context = partial(_context, connection, inbound.credentials)
    return await server_handshake(sock, context, inbound.handshake_timeout, inbound.before_step, caller)


def _context(connection: Connection, credentials: Latest[Contexts]) -> SSL.Context:
    """Return the server context of the present generation; called when the caller's first byte has come."""
    current = credentials.value
    assert current is not None  # checked in `_handshake`; a cell is never emptied
    leaf = current.credentials.leaf
    connection.ours = Party(id=leaf.id, serial=leaf.serial)
    return current.server


async def _relay(plain: socket.socket, tls: SSL.Connection, connection: Connection, relay: Relay) -> Ending:
    connection.relaying()
    transfer = await relay.run(plain, tls, connection.progress)
    connection.end(transfer.ending, transfer.detail)
    return transfer.ending


def _identify(tls: SSL.Connection, inbound: Inbound) -> Peer:
    """Return the caller's identity by the present roots, which may have changed during the handshake."""
    if inbound.beat and tls.get_servername() == inbound.beat:
        raise HandshakeFailed(HandshakeReason.PROBE, "our own watchdog")
    current = inbound.credentials.value
    assert current is not None  # a cell is never emptied
    return verify_peer(verified_chain(tls), current.credentials.bundle, inbound.clock())


def _is_tunnel(tls: SSL.Connection, connection: Connection) -> bool:
    """Return whether the caller has marked the connection as a tunnel."""
    assert connection.ours is not None  # set in the handshake
    return is_marked(tls.get_servername(), connection.ours.id.service)


def _tunnels(inbound: Inbound) -> ServeTunnel:
    """Return what serves tunnels. Raises Denied if callers may open none."""
    if inbound.serve_tunnel is None:
        raise Denied(InboundReason.NO_TUNNELS, "the setting `tunnel` is never")
    return inbound.serve_tunnel


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
    close_without_notify(sock)
