"""One outbound connection, from top to bottom: a candidate, its address, its identity, and only then our app.

Candidates are tried one after the other until one serves. A failure before the first application byte tries
the next; after it, never: nobody knows what the far side has done with the bytes. A candidate that was not
trusted by roots which have been replaced meanwhile is tried again by the newest: that failure was ours.

Where a warm connection is ready (agent.outbound.warm_pool) it is used instead: then all that comes before the
first byte has happened already.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.latest import Latest
from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, Direction, FailedAttempt, Party
from agent.net.dial import DialFailed, DialReason, dial, remote
from agent.net.handshake import HandshakeFailed, HandshakeReason, client_handshake, verified_chain
from agent.outbound.candidates import CandidateSearch
from agent.outbound.upstream_state import UpstreamState, counted
from agent.outbound.warm_serve import serve_warm
from agent.policy.authorize import VerdictReason
from agent.policy.deny_list import NOBODY, DenyList
from agent.policy.source_intentions import Callee, SourceIntentions
from agent.relay.close import close_both, has_left, reset
from agent.relay.relay import Relay
from agent.relay.splice import Ending, Transfer
from certs.contexts import Contexts
from certs.peer import Peer, PeerReason, PeerRejected, verify_peer
from certs.spiffe import DEFAULT, TrustDomain
from upstreams.endpoints import ExpectedIdentity
from upstreams.reach import DialAddress, Unreachable
from upstreams.route import Candidate, dialled

_BY_OUR_ROOTS = (HandshakeReason.UNTRUSTED_CHAIN, PeerReason.UNTRUSTED_ROOT)


class OutboundReason(StrEnum):
    """Why an app's connection to an upstream was not served."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    CREDENTIALS_EXPIRED = "credentials_expired"  # ours: no peer would have us
    CREDENTIALS_UNTRUSTED = "credentials_untrusted"  # ours again: no root that Consul lists vouches for us
    NO_ENDPOINTS_YET = "no_endpoints_yet"  # the first answer has not come
    NO_ENDPOINTS = "no_endpoints"
    NO_GATEWAYS = "no_gateways"
    WRONG_IDENTITY = "wrong_identity"
    REFUSED_BY_PEER = "refused_by_peer"
    ALL_FAILED = "all_failed"
    ROOTS_REPLACED = "roots_replaced"  # during the handshake, which failed by the former: tried again
    DENY_LISTED = "deny_listed"
    INTENTION_DENY = "intention_deny"  # by the intentions that speak of us as a source
    NARROWED = "narrowed_by_datacenter"  # by the same
    DEADLINE = "upstream_deadline"
    OVERFLOW = "upstream_overflow"  # max_connections
    PENDING_OVERFLOW = "upstream_pending_overflow"  # max_pending_requests


_KEPT_OUT = {
    VerdictReason.INTENTION_DENY: OutboundReason.INTENTION_DENY,
    VerdictReason.NARROWED: OutboundReason.NARROWED,
}


class NotServed(Exception):
    """This candidate, or the whole connection, cannot be served."""

    def __init__(self, reason: OutboundReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """What every connection of our app to an upstream shares. `handshake_timeout` in seconds."""

    credentials: Latest[Contexts]
    source_intentions: Latest[SourceIntentions]
    deny_list: Latest[DenyList]
    relay: Relay
    ledger: Ledger
    clock: Clock
    handshake_timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """What every attempt of one connection shares."""

    targets: UpstreamState
    search: CandidateSearch
    on_served: Callable[[], None]
    outbound: Outbound


async def serve(
    sock: socket.socket, on_served: Callable[[], None], targets: UpstreamState, outbound: Outbound
) -> None:
    """Serve one accepted, non-blocking socket of our app to its end, and close it.

    `on_served` is called when a candidate is found that serves it.
    """
    try:
        destination = str(targets.upstream.destination)
        with outbound.ledger.open(Direction.OUTBOUND, remote(sock), destination) as connection:
            try:
                with _admitted(connection, targets):
                    search = CandidateSearch(targets)
                    route = _Route(targets=targets, search=search, on_served=on_served, outbound=outbound)
                    await _serve(sock, route, connection)
            except NotServed as failure:
                connection.end(failure.reason, failure.detail)
    finally:
        reset(sock)  # unless it has been closed: our app must not take a failure for an end


@contextmanager
def _admitted(connection: Connection, targets: UpstreamState) -> Iterator[None]:
    """Count the connection, if the upstream's limits let it in; else raise NotServed."""
    full = _overflow(targets)
    if full is not None:
        targets.overflow[full.reason.value] += 1
        raise full
    targets.connections.add(connection)
    try:
        yield
    finally:
        targets.connections.remove(connection)


def _overflow(targets: UpstreamState) -> NotServed | None:
    """Which limit is reached, if any."""
    upstream = targets.upstream
    if upstream.max_connections is not None and len(targets.connections) >= upstream.max_connections:
        return NotServed(OutboundReason.OVERFLOW, f"max_connections is {upstream.max_connections}")
    if upstream.max_pending is not None and targets.pending >= upstream.max_pending:
        return NotServed(OutboundReason.PENDING_OVERFLOW, f"max_pending_requests is {upstream.max_pending}")
    return None


async def _serve(sock: socket.socket, route: _Route, connection: Connection) -> None:
    if route.outbound.credentials.value is None:
        raise NotServed(OutboundReason.NO_CREDENTIALS_YET, "there is no certificate to show yet")
    fault = route.outbound.credentials.value.credentials.fault(route.outbound.clock())
    if fault is not None:
        raise NotServed(OutboundReason(fault[0].value), fault[1])
    failed: list[FailedAttempt] = []
    if route.targets.warm is not None:
        served = await serve_warm(
            sock,
            connection,
            failed,
            targets=route.targets,
            relay=route.outbound.relay,
            ledger=route.outbound.ledger,
            on_served=route.on_served,
        )
        if served:
            return
    kept_out: set[ExpectedIdentity] = set()
    while (approach := await route.search.next()) is not None:
        if approach.endpoint.expected in kept_out:
            continue
        if failed and has_left(sock):
            connection.end(Ending.PLAIN_RESET, f"before it was served: {'; '.join(map(str, failed))}")
            return
        address = "no address"
        try:
            dialling = route.targets.address(approach)
            address = str(dialling)
            await _persist(sock, route, connection, approach, dialling)
        except (Unreachable, DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            if failure.reason in _KEPT_OUT.values():  # of every instance, and against none of them
                kept_out.add(approach.endpoint.expected)
            elif failure.reason is not DialReason.NO_RESOURCES:  # of ours, and no fault of the endpoint
                route.targets.failed(approach)
            detail = str(failure) if isinstance(failure, Unreachable) else failure.detail
            attempt = FailedAttempt(
                endpoint=str(approach), address=address, reason=failure.reason, detail=detail
            )
            failed.append(attempt)
            route.outbound.ledger.attempt_failed(connection, attempt)
        else:
            return
    raise _none_left(failed, route)


async def _persist(
    sock: socket.socket, route: _Route, connection: Connection, approach: Candidate, dialling: DialAddress
) -> None:
    """Attempt it, again if it was judged by roots that are not the newest any more."""
    while True:
        version = route.outbound.credentials.version
        try:
            return await _attempt(sock, route, connection, approach, dialling)
        except (HandshakeFailed, PeerRejected) as failure:
            if failure.reason not in _BY_OUR_ROOTS or route.outbound.credentials.version == version:
                raise
            attempt = FailedAttempt(
                endpoint=str(approach),
                address=str(dialling),
                reason=OutboundReason.ROOTS_REPLACED,
                detail=failure.detail,
            )
            route.outbound.ledger.attempt_failed(connection, attempt)


async def _attempt(
    sock: socket.socket, route: _Route, connection: Connection, approach: Candidate, dialling: DialAddress
) -> None:
    """Serve the connection by this candidate. If this raises, not a byte of our app has been taken."""
    connection.peer = None
    ending: Ending | None = None
    expected = approach.endpoint.expected
    _must_be_let(route, connection, expected)
    with counted(route.targets, approach.hop.key), ExitStack() as last:
        seconds = route.search.seconds(approach, route.targets.upstream.connect_timeout)
        tcp = await dial(TcpAddress(dialling.host, dialling.port), seconds, shun=route.targets.shun)
        last.callback(lambda: close_both(None, tcp, ending))
        tls = await _handshake(tcp, route, connection, approach)
        peer = identify(
            tls, expected, route.outbound.credentials, route.outbound.clock(), route.outbound.deny_list
        )
        _must_be_let(route, connection, expected)  # as the list is by now
        connection.peer = peer
        connection.dialled = dialled(approach, dialling)
        route.on_served()
        connection.relaying()
        transfer = await route.outbound.relay.run(sock, tls, connection.progress)
        route.search.served()
        ending = transfer.ending
        if transfer.answered:
            route.targets.succeeded(approach)
        if transfer.refused:
            _take_refusal(transfer, connection, route, approach)
        else:
            connection.end(transfer.ending, transfer.detail)
        close_both(sock, None, ending)


async def _handshake(
    tcp: socket.socket, route: _Route, connection: Connection, approach: Candidate
) -> SSL.Connection:
    current = _newest(route.outbound.credentials)
    leaf = current.credentials.leaf
    connection.ours = Party(id=leaf.id, serial=leaf.serial)
    name = server_name(approach.endpoint.expected, current.credentials.bundle.trust_domain)
    seconds = route.search.seconds(approach, route.outbound.handshake_timeout)
    return await client_handshake(tcp, current.client, name, seconds, route.outbound.relay.serve_relay)


def _must_be_let(route: _Route, connection: Connection, callee: Callee) -> None:
    """Raise NotServed if our own list keeps us from calling that service."""
    known = route.outbound.source_intentions.value
    if known is None:
        return
    denial = known.denial(_newest(route.outbound.credentials).credentials.leaf.id, callee)
    if denial is None:
        return
    if denial.audited:
        route.outbound.ledger.audit(connection, Audited(reason=denial.reason, rule=denial.rule))
        return
    connection.rule = denial.rule
    raise NotServed(_KEPT_OUT[denial.reason], f"{callee}: {denial.rule}")


def identify(
    tls: SSL.Connection,
    expected: ExpectedIdentity,
    credentials: Latest[Contexts],
    at: datetime,
    deny_list: Latest[DenyList],
) -> Peer:
    """The peer, if it is who that endpoint must be, by the roots of this moment.

    Raises PeerRejected, or NotServed.
    """
    bundle = _newest(credentials).credentials.bundle
    peer = verify_peer(verified_chain(tls), bundle, at)
    if not expected.matches(peer.id):
        detail = f"expected spiffe://{bundle.trust_domain}{expected}, it is {peer.id}"
        raise NotServed(OutboundReason.WRONG_IDENTITY, detail)
    denied = (deny_list.value or NOBODY).objection(peer)
    if denied:
        raise NotServed(OutboundReason.DENY_LISTED, f"{peer.id}: {denied}")
    return peer


def server_name(expected: ExpectedIdentity, trust_domain: TrustDomain) -> str:
    """The SNI by which a mesh gateway finds that service; harmless elsewhere (docs/consul-api.md#sni)."""
    if expected.partition == DEFAULT:
        return f"{expected.service}.{expected.namespace}.{expected.datacenter}.internal.{trust_domain}"
    names = (expected.service, expected.namespace, expected.partition, expected.datacenter)
    return f"{'.'.join(names)}.internal-v1.{trust_domain}"


def _take_refusal(transfer: Transfer, connection: Connection, route: _Route, approach: Candidate) -> None:
    """Leave it to the next candidate if nothing was said yet; else name the ending."""
    detail = f"{transfer.ending.value}: {transfer.detail}"
    if transfer.untouched:
        raise NotServed(OutboundReason.REFUSED_BY_PEER, detail)
    route.targets.failed(approach)
    connection.end(OutboundReason.REFUSED_BY_PEER, detail)


def _newest(contexts: Latest[Contexts]) -> Contexts:
    current = contexts.value
    assert current is not None  # looked at before the first attempt; a published value is never taken back
    return current


def _none_left(failed: list[FailedAttempt], route: _Route) -> NotServed:
    detail = "; ".join(map(str, failed))
    if route.search.late:
        told = f"not served within {route.targets.upstream.deadline:g} s"
        return NotServed(OutboundReason.DEADLINE, f"{told}; {detail}" if detail else told)
    if failed:
        reasons = {attempt.reason for attempt in failed}
        named = [one for one in (OutboundReason.REFUSED_BY_PEER, *_KEPT_OUT.values()) if reasons == {one}]
        return NotServed(named[0] if named else OutboundReason.ALL_FAILED, detail)
    known = [source.endpoints.value for source in route.targets.sources()]
    if all(endpoints is None for endpoints in known):
        return NotServed(OutboundReason.NO_ENDPOINTS_YET, "where the upstream is, is not known yet")
    if any(endpoints is not None and endpoints.tiers for endpoints in known):
        return NotServed(OutboundReason.NO_GATEWAYS, "no mesh gateway is known on the way")
    return NotServed(OutboundReason.NO_ENDPOINTS, "no instance is passing or warning")
