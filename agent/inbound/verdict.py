"""What all callers of our service are judged by, and the verdict on one of them, without IO.

A connection is judged once it is opened, a stream of a tunnel likewise, and both again when a value changes
(agent.connections.reauthorize).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
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
from agent.connections.reauthorize import objection_to
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
    NOT_CONNECT = "not_connect"  # a stream of a tunnel asks for something else
    NO_TUNNELS = "no_tunnels"  # the caller asks for one, which our setting forbids
    UNSUPPORTED_PROTOCOL = (
        "l7_unsupported_protocol"  # permissions for HTTP/2, which this proxy does not parse
    )


class Admitted(Waited, Protocol):
    """A caller that holds a slot of a listener; `waited`: the seconds it had to wait for it."""

    waited: float

    def settle(self) -> None:
        """Note that the handshake has succeeded."""

    def join(self) -> bool:
        """Take a place for another connection of the same caller; False if the limit is reached."""

    def part(self) -> None:
        """Free such a place."""


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


def judge_stream(connection: Connection, peer: Peer, inbound: Inbound, now: datetime) -> Handling:
    """Return the same for a stream of a tunnel, whose caller was proven earlier. Raises Denied."""
    contexts = inbound.credentials.value
    assert contexts is not None  # the tunnel's handshake used them; a cell is never emptied
    fault = contexts.credentials.fault(now)
    if fault is not None:
        raise Denied(InboundReason(fault[0].value), fault[1])
    objection = objection_to(peer, contexts, now, inbound.deny_list.value or NO_ENTRIES)
    if objection is not None:
        raise Denied(*objection)
    return judge(connection, peer, inbound)


class StreamJudge:
    """Judges the streams of one tunnel, and keeps its verdict while all it was decided from is the same.

    Only an admission is kept, and only one that is settled for the whole stream: a denial, a call that audit
    mode has allowed, and a caller whose requests are judged one by one are decided afresh each time.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def judge(self, connection: Connection, peer: Peer, inbound: Inbound) -> Handling:
        """Return how the stream's bytes are handled. Raises Denied."""
        kept, now = self._kept, inbound.clock()
        if kept is not None and kept.holds(peer, inbound, now):
            connection.rule, connection.intention = kept.rule, kept.intention
            return kept.how
        self._kept = None
        how = judge_stream(connection, peer, inbound, now)
        if how is not Handling.BY_REQUEST and not connection.audited:
            self._kept = _kept(connection, peer, inbound, now, how)
        return how


@dataclass(frozen=True, slots=True)
class _Kept:
    """An admission, and all that it was decided from; each cell by how often it was published."""

    how: Handling
    rule: str
    intention: str
    peer: Peer
    inbound: Inbound  # another registration is another one
    credentials: int
    policy: int
    deny_list: int
    since: datetime
    until: datetime  # when the caller's certificate expires, or ours

    def holds(self, peer: Peer, inbound: Inbound, now: datetime) -> bool:
        """Return whether the same would be decided now."""
        return (
            self.peer is peer
            and self.inbound is inbound
            and self.policy == inbound.policy.version
            and self.credentials == inbound.credentials.version
            and self.deny_list == inbound.deny_list.version
            and self.since <= now <= self.until
            and inbound.freshness.too_old_since() is None
        )


def _kept(connection: Connection, peer: Peer, inbound: Inbound, now: datetime, how: Handling) -> _Kept:
    contexts = inbound.credentials.value
    assert contexts is not None  # looked at by `judge_stream`
    return _Kept(
        *(how, connection.rule, connection.intention, peer, inbound),
        *(inbound.credentials.version, inbound.policy.version, inbound.deny_list.version),
        *(now, min(peer.not_after, contexts.credentials.leaf.not_after)),
    )


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
