"""Serves one inbound connection: handshake, identity, intention, and only then our app.

The app is dialled after the verdict, never before, so a refused caller costs it nothing.

HTTP/1.1 is parsed and judged request by request as soon as an intention for us has permissions, or when the
app is to get the caller's identity (`HttpMode.ALWAYS`). Otherwise its bytes are relayed like any others, at a
multiple of the speed.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from OpenSSL import SSL

from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, Direction, Party
from agent.http1.fields import identity_value
from agent.http1.head import FieldNames
from agent.inbound.http_connection import HttpConnection, HttpService
from agent.net.dial import DialFailed, Shun, dial, nothing, remote
from agent.net.handshake import (
    BeforeStep,
    HandshakeFailed,
    HandshakeReason,
    Waited,
    no_wait,
    server_handshake,
    verified_chain,
)
from agent.net.proxy_protocol import Introduction, header, places
from agent.policy.authorize import Policy, VerdictReason, authorize, authorize_caller
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.http_mode import HttpMode
from agent.relay.close import close_both, close_without_notify
from agent.relay.relay import Relay
from agent.relay.splice import Ending
from agent.relay.streams import TlsStream
from certs.contexts import Contexts
from certs.peer import Peer, PeerRejected, verify_peer


class InboundReason(StrEnum):
    """Why a caller is refused, beside the reasons of handshake, identity and intentions."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    NO_INTENTIONS_YET = "no_intentions_yet"
    CREDENTIALS_EXPIRED = "credentials_expired"  # ours: every peer would refuse us
    CREDENTIALS_UNTRUSTED = "credentials_untrusted"  # ours: no root in Consul's list vouches for our leaf
    DENY_LISTED = "deny_listed"
    UNSUPPORTED_PROTOCOL = (
        "l7_unsupported_protocol"  # permissions for HTTP/2, which this proxy does not parse
    )


class Admitted(Waited, Protocol):
    """A caller that holds a slot of a listener."""

    def settle(self) -> None:
        """Note that the handshake has succeeded."""


class Denied(Exception):
    """The caller's identity is proven, and it is denied: `reason` is a VerdictReason or an InboundReason."""

    def __init__(self, reason: StrEnum, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """What all callers of one service share: the newest values, the app, the limits. Times in seconds.

    `proxy_protocol`: every connection to the app begins with a PROXY header that names the caller.
    """

    credentials: Latest[Contexts]
    policy: Latest[Policy]
    freshness: Freshness
    deny_list: Latest[DenyList]
    app: Address
    relay: Relay
    ledger: Ledger
    clock: Clock
    handshake_timeout: float
    connect_timeout: float
    http: HttpMode = HttpMode.NEVER
    underscores_in_headers: bool = False
    proxy_protocol: bool = False
    shun: Shun = nothing  # addresses of our own listeners, which must not be dialled as the app
    before_step: BeforeStep = no_wait  # awaited before each step of a handshake


async def serve(sock: socket.socket, caller: Admitted | None, inbound: Inbound) -> None:
    """Serve one accepted, non-blocking socket until its end, and close it."""
    plain: socket.socket | None = None
    ending: Ending | None = None
    try:
        with inbound.ledger.open(Direction.INBOUND, remote(sock)) as connection:
            try:
                tls = await _handshake(sock, caller, connection, inbound)
                if caller is not None:
                    caller.settle()
                peer = connection.peer = _identify(tls, inbound)
                _check_deny_list(peer, inbound.deny_list)
                connection.handling = _authorize(connection, peer, inbound)
                preamble = _preamble(sock, tls, peer) if inbound.proxy_protocol else b""
                if connection.handling is Handling.BY_REQUEST:
                    ending = await _serve_requests(sock, tls, connection, preamble, inbound)
                else:
                    plain = await dial(inbound.app, inbound.connect_timeout, preamble, inbound.shun)
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


async def _serve_requests(
    sock: socket.socket, tls: SSL.Connection, connection: Connection, preamble: bytes, inbound: Inbound
) -> Ending:
    assert connection.peer is not None  # set by `serve`
    stream = TlsStream(tls, sock, connection.progress)
    identity = _identity(inbound.credentials, connection.peer)
    connection.relaying()
    service = HttpService(
        policy=inbound.policy,
        freshness=inbound.freshness,
        app=inbound.app,
        connect_timeout=inbound.connect_timeout,
        relay=inbound.relay,
        ledger=inbound.ledger,
        preamble=preamble,
        shun=inbound.shun,
        names=FieldNames.UNDERSCORES if inbound.underscores_in_headers else FieldNames.PLAIN,
    )
    http_connection = HttpConnection(
        stream, service, peer=connection.peer, identity=identity, connection=connection
    )
    return await http_connection.serve()


async def _relay(plain: socket.socket, tls: SSL.Connection, connection: Connection, relay: Relay) -> Ending:
    connection.relaying()
    transfer = await relay.run(plain, tls, connection.progress)
    connection.end(transfer.ending, transfer.detail)
    return transfer.ending


def _identify(tls: SSL.Connection, inbound: Inbound) -> Peer:
    """Return the caller's identity by the present roots, which may have changed during the handshake."""
    current = inbound.credentials.value
    assert current is not None  # a cell is never emptied
    return verify_peer(verified_chain(tls), current.credentials.bundle, inbound.clock())


def _check_deny_list(peer: Peer, deny_list: Latest[DenyList]) -> None:
    """Raise Denied if the operator's deny list names the peer; audit mode does not lift that."""
    denied = (deny_list.value or NO_ENTRIES).objection(peer)
    if denied:
        raise Denied(InboundReason.DENY_LISTED, f"{peer.id}: {denied}")


def _authorize(connection: Connection, peer: Peer, inbound: Inbound) -> Handling:
    """Return how the caller's bytes are handled. Raises Denied."""
    policy = inbound.policy.value
    if policy is None:
        raise Denied(InboundReason.NO_INTENTIONS_YET, f"{peer.id}: intentions are not known yet")
    how = handling(policy, inbound.http)
    judge = authorize_caller if how is Handling.BY_REQUEST else authorize
    verdict = judge(policy, peer.id, inbound.freshness.too_old_since())
    connection.rule = verdict.rule
    if verdict.audited:
        inbound.ledger.audit(connection, Audited(reason=verdict.reason, rule=verdict.rule))
    if verdict.allowed:
        return how
    if verdict.reason is VerdictReason.INTENTION_BY_REQUEST and inbound.http is HttpMode.UNSUPPORTED:
        raise Denied(InboundReason.UNSUPPORTED_PROTOCOL, f"{peer.id}: {verdict.rule}")
    raise Denied(verdict.reason, f"{peer.id}: {verdict.rule}")


def handling(policy: Policy, http: HttpMode) -> Handling:
    """Return how the bytes of an admitted caller are handled."""
    if http is HttpMode.ALWAYS or (http is HttpMode.IF_NEEDED and policy.intentions.by_request):
        return Handling.BY_REQUEST
    return Handling.RELAYED_HTTP if http is HttpMode.IF_NEEDED else Handling.RELAYED


def _preamble(sock: socket.socket, tls: SSL.Connection, peer: Peer) -> bytes:
    source, destination = places(sock)
    version, cipher = tls.get_protocol_version_name(), tls.get_cipher_name() or ""
    return header(
        Introduction(
            caller=peer.id, tls_version=version, cipher=cipher, source=source, destination=destination
        )
    )


def _identity(contexts: Latest[Contexts], peer: Peer) -> bytes:
    current = contexts.value
    assert current is not None  # the handshake used it
    return identity_value(current.credentials.leaf.id, peer.id)


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
