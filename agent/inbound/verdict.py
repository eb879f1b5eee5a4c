"""What all callers of our service are judged by, and the verdict on one of them, without IO.

A connection is judged once it is opened, a stream of a tunnel likewise, and both again when a value changes
(agent.connections.reauthorize).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.base.address import Address
from agent.base.clock import Clock
from agent.base.containment import FaultEvents
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.connections.connection import Connection, Handling
from agent.connections.ledger import Ledger
from agent.connections.records import Audited
from agent.http1.fields import identity_value
from agent.net.dial import Shun, nothing
from agent.net.handshake import BeforeStep, Waited, no_wait
from agent.net.proxy_protocol import Introduction, header, places
from agent.policy.authorize import Policy, VerdictReason, authorize, authorize_caller
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.http_mode import HttpMode
from agent.relay.relay import Relay
from certs.contexts import Contexts
from certs.peer import Peer


class InboundReason(StrEnum):
    """Why a caller is refused, beside the reasons of handshake, identity and intentions."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    NO_INTENTIONS_YET = "no_intentions_yet"
    CREDENTIALS_EXPIRED = "credentials_expired"  # ours: every peer would refuse us
    CREDENTIALS_UNTRUSTED = "credentials_untrusted"  # ours: no root in Consul's list vouches for our leaf
    DENY_LISTED = "deny_listed"
    NO_APP = "no_local_app"  # the registration has lost its app since the tunnel began
    NO_TUNNELS = "no_tunnels"  # the caller asks for one, which our setting forbids
    UNSUPPORTED_PROTOCOL = (
        "l7_unsupported_protocol"  # permissions for HTTP/2, which this proxy does not parse
    )


class Admitted(Waited, Protocol):
    """A caller that holds a slot of a listener; `waited`: the seconds it had to wait for it."""

    waited: float

    def settle(self) -> None:
        """Note that the handshake has succeeded."""

    def join(self) -> Joined | None:
        """Return a slot for another connection of the same caller; None if the limit is reached."""


class Joined(Protocol):
    """A slot of a stream."""

    def leave(self) -> None:
        """Free it."""


class ServeTunnel(Protocol):
    """Serves the streams of a tunnel until its end (agent.inbound.tunnel)."""

    async def __call__(
        self,
        sock: socket.socket,
        tls: SSL.Connection,
        inbound: Inbound,
        /,
        *,
        caller: Admitted | None,
        connection: Connection,
        preamble: bytes,
    ) -> None: ...


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
    faults: FaultEvents
    clock: Clock
    handshake_timeout: float
    connect_timeout: float
    http: HttpMode = HttpMode.NEVER
    underscores_in_headers: bool = False
    proxy_protocol: bool = False
    shun: Shun = nothing  # addresses of our own listeners, which must not be dialled as the app
    before_step: BeforeStep = no_wait  # awaited before each step of a handshake
    serve_tunnel: ServeTunnel | None = None  # None: callers may open no tunnels
    renewed: Callable[[], Inbound | None] | None = None  # the same by the newest registration, for streams
    leaving: trio.Event = field(default_factory=trio.Event)  # set when no more callers are accepted
    beat: bytes = b""  # the SNI of our own watchdog


def check_deny_list(peer: Peer, deny_list: Latest[DenyList]) -> None:
    """Raise Denied if the operator's deny list names the peer; audit mode does not lift that."""
    denied = (deny_list.value or NO_ENTRIES).objection(peer)
    if denied:
        raise Denied(InboundReason.DENY_LISTED, f"{peer.id}: {denied}")


def judge(connection: Connection, peer: Peer, inbound: Inbound) -> Handling:
    """Return how the caller's bytes are handled. Raises Denied."""
    policy = inbound.policy.value
    if policy is None:
        raise Denied(InboundReason.NO_INTENTIONS_YET, f"{peer.id}: intentions are not known yet")
    how = handling(policy, inbound.http)
    authority = authorize_caller if how is Handling.BY_REQUEST else authorize
    verdict = authority(policy, peer.id, inbound.freshness.too_old_since())
    connection.rule, connection.intention = verdict.rule, verdict.intention
    if verdict.audited:
        audited = Audited(reason=verdict.reason, rule=verdict.rule, intention=verdict.intention)
        inbound.ledger.audit(connection, audited)
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


def preamble(sock: socket.socket, tls: SSL.Connection, peer: Peer) -> bytes:
    """Return the PROXY header by which the app learns who calls."""
    source, destination = places(sock)
    version, cipher = tls.get_protocol_version_name(), tls.get_cipher_name() or ""
    return header(
        Introduction(
            caller=peer.id, tls_version=version, cipher=cipher, source=source, destination=destination
        )
    )


def identity(contexts: Latest[Contexts], peer: Peer) -> bytes:
    """Return the value of X-Forwarded-Client-Cert for that caller."""
    current = contexts.value
    assert current is not None  # the handshake used it
    return identity_value(current.credentials.leaf.id, peer.id)
