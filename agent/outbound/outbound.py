"""Serves one outbound connection: a candidate, its address, its identity, and only then our app's bytes.

Candidates are tried one after another until one serves. A failure before the first application byte tries the
next one. A failure after it never does, since the far side may have acted on the bytes. A candidate that
failed by roots which have been replaced meanwhile is tried again by the newest, since the failure was ours.

A ready warm connection (agent.outbound.warm_pool) is used instead, with all steps before the first byte done.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.latest import Latest
from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, Direction, FailedAttempt, Party
from agent.net.dial import DialFailed, dial, remote
from agent.net.handshake import HandshakeFailed, HandshakeReason, client_handshake
from agent.outbound.candidates import CandidateSearch
from agent.outbound.identify import identify, server_name
from agent.outbound.reasons import (
    DENIALS,
    NO_FAULT,
    REFUSALS,
    NotServed,
    OutboundReason,
    name_refusal,
)
from agent.outbound.upstream_state import UpstreamState, counted, within_limits
from agent.outbound.warm_serve import serve_warm
from agent.policy.deny_list import DenyList
from agent.policy.source_intentions import Callee, OwnIntentions, SourceIntentions
from agent.relay.close import close_both, has_left, reset
from agent.relay.relay import Relay
from agent.relay.splice import Ending, Progress, Transfer
from certs.contexts import Contexts
from certs.peer import Peer, PeerReason, PeerRejected
from upstreams.endpoints import ExpectedIdentity
from upstreams.reach import DialAddress, Unreachable
from upstreams.route import Candidate, dialled
from upstreams.travel import TunnelStanding

_BY_OUR_ROOTS = (HandshakeReason.UNTRUSTED_CHAIN, PeerReason.UNTRUSTED_ROOT)


class TunnelTo(Protocol):
    """A tunnel to an endpoint, ready for a stream (agent.outbound.tunnels)."""

    ours: Party
    cipher: str  # TLS version and cipher
    peer: Peer

    async def run(self, sock: socket.socket, progress: Progress, /) -> Transfer:
        """Carry a connection of our app until it is over, as `Relay.run` does."""


class TunnelSource(TunnelStanding, Protocol):
    """The tunnels to the endpoints that offer them (agent.outbound.tunnels)."""

    async def get(
        self,
        expected: ExpectedIdentity,
        dialling: DialAddress,
        /,
        *,
        dial_seconds: float,
        shake_seconds: float,
    ) -> TunnelTo | None:
        """Return a tunnel that takes a stream; None: use a connection of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """What all connections of our app to upstreams share. `handshake_timeout` in seconds."""

    credentials: Latest[Contexts]
    source_intentions: Latest[SourceIntentions]
    deny_list: Latest[DenyList]
    relay: Relay
    ledger: Ledger
    clock: Clock
    handshake_timeout: float
    own_intentions: Latest[OwnIntentions] = field(default_factory=Latest)
    tunnels: TunnelSource | None = None  # None: each connection of our app gets one of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """What all attempts of one connection share."""

    targets: UpstreamState
    search: CandidateSearch
    on_served: Callable[[], None]
    outbound: Outbound


async def serve(
    sock: socket.socket,
    on_served: Callable[[], None],
    targets: UpstreamState,
    outbound: Outbound,
    waited: float = 0.0,
) -> None:
    """Serve one accepted, non-blocking socket of our app until its end, and close it.

    `on_served` is called when a candidate serves it; `waited`: the seconds since it was accepted.
    """
    try:
        destination = str(targets.upstream.destination)
        with outbound.ledger.open(Direction.OUTBOUND, remote(sock), destination) as connection:
            connection.queue_seconds = waited
            try:
                with within_limits(connection, targets):
                    search = CandidateSearch(targets)
                    route = _Route(targets=targets, search=search, on_served=on_served, outbound=outbound)
                    await _serve(sock, route, connection)
            except NotServed as failure:
                connection.end(failure.reason, failure.detail)
    finally:
        reset(sock)  # without effect on a closed socket; our app must not take a failure for an orderly end


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
    denied: set[ExpectedIdentity] = set()
    while (candidate := await route.search.next()) is not None:
        if candidate.endpoint.expected in denied:
            continue
        if failed and has_left(sock):
            connection.end(Ending.PLAIN_RESET, f"before it was served: {'; '.join(map(str, failed))}")
            return
        address = "no address"
        try:
            dialling = route.targets.address(candidate)
            address = str(dialling)
            await _attempt_by_newest_roots(sock, route, connection, candidate, dialling)
        except (Unreachable, DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            if failure.reason in DENIALS.values():  # of every instance, and against none of them
                denied.add(candidate.endpoint.expected)
            elif failure.reason not in NO_FAULT:
                route.targets.failed(candidate)
            detail = str(failure) if isinstance(failure, Unreachable) else failure.detail
            attempt = FailedAttempt(
                endpoint=str(candidate), address=address, reason=failure.reason, detail=detail
            )
            failed.append(attempt)
            route.outbound.ledger.attempt_failed(connection, attempt)
        else:
            return
    raise _why_none_served(failed, route)


async def _attempt_by_newest_roots(
    sock: socket.socket, route: _Route, connection: Connection, candidate: Candidate, dialling: DialAddress
) -> None:
    """Attempt the candidate, and again if newer roots were published while it failed by the old ones."""
    while True:
        version = route.outbound.credentials.version
        try:
            return await _attempt(sock, route, connection, candidate, dialling)
        except (HandshakeFailed, PeerRejected) as failure:
            if failure.reason not in _BY_OUR_ROOTS or route.outbound.credentials.version == version:
                raise
            attempt = FailedAttempt(
                endpoint=str(candidate),
                address=str(dialling),
                reason=OutboundReason.ROOTS_REPLACED,
                detail=failure.detail,
            )
            route.outbound.ledger.attempt_failed(connection, attempt)


async def _attempt(
    sock: socket.socket, route: _Route, connection: Connection, candidate: Candidate, dialling: DialAddress
) -> None:
    """Serve the connection by this candidate. If this raises, no byte of our app has been taken."""
    connection.peer, connection.rule, connection.intention = None, "", ""
    _check_source_intentions(route, connection, candidate.endpoint.expected)
    with counted(route.targets, candidate.hop.key):
        tunnel = await _tunnel(route, candidate, dialling)
        if tunnel is not None:
            connection.ours, connection.peer, connection.cipher = tunnel.ours, tunnel.peer, tunnel.cipher
            connection.dialled = dialled(candidate, dialling, "tunnel")
            carry = partial(tunnel.run, sock, connection.progress)
            await _relay(sock, route, connection, candidate, carry)
            return
        ending: Ending | None = None
        seconds = route.search.seconds(candidate, route.targets.upstream.connect_timeout)
        connection.lap()
        tcp = await dial(TcpAddress(dialling.host, dialling.port), seconds, shun=route.targets.shun)
        connection.connect_seconds = connection.lap()
        try:
            tls = await _handshake(tcp, route, connection, candidate)
            connection.shook_hands(tls)
            connection.peer = identify(
                tls,
                candidate.endpoint.expected,
                route.outbound.credentials,
                route.outbound.clock(),
                route.outbound.deny_list,
            )
            connection.dialled = dialled(candidate, dialling)
            carry = partial(route.outbound.relay.run, sock, tls, connection.progress)
            ending = await _relay(sock, route, connection, candidate, carry)
        finally:
            close_both(None, tcp, ending)


async def _tunnel(route: _Route, candidate: Candidate, dialling: DialAddress) -> TunnelTo | None:
    """Return a tunnel for the connection; None if it gets a connection of its own."""
    outbound, upstream = route.outbound, route.targets.upstream
    if outbound.tunnels is None or not route.targets.travel(candidate, dialling, outbound.tunnels).in_tunnel:
        return None
    return await outbound.tunnels.get(
        candidate.endpoint.expected,
        dialling,
        dial_seconds=route.search.seconds(candidate, upstream.connect_timeout),
        shake_seconds=route.search.seconds(candidate, outbound.handshake_timeout),
    )


async def _relay(
    sock: socket.socket,
    route: _Route,
    connection: Connection,
    candidate: Candidate,
    carry: Callable[[], Awaitable[Transfer]],
) -> Ending:
    """Let the bytes flow by `carry`, name the ending, and close our app's leg by it. Raises NotServed."""
    _check_source_intentions(route, connection, candidate.endpoint.expected)  # as the list is by now
    route.on_served()
    connection.relaying()
    transfer = await carry()
    route.search.served()
    if transfer.answered:
        route.targets.succeeded(candidate)
    if transfer.refused:
        await _take_refusal(transfer, connection, route, candidate)
    else:
        connection.end(transfer.ending, transfer.detail)
    close_both(sock, None, transfer.ending)
    return transfer.ending


async def _handshake(
    tcp: socket.socket, route: _Route, connection: Connection, candidate: Candidate
) -> SSL.Connection:
    current = _newest(route.outbound.credentials)
    leaf = current.credentials.leaf
    connection.ours = Party(id=leaf.id, serial=leaf.serial)
    name = server_name(candidate.endpoint.expected, current.credentials.bundle.trust_domain)
    seconds = route.search.seconds(candidate, route.outbound.handshake_timeout)
    return await client_handshake(tcp, current.client, name, seconds, route.outbound.relay.serve_relay)


def _check_source_intentions(route: _Route, connection: Connection, callee: Callee) -> None:
    """Raise NotServed if intentions deny our service the call, unless they are only audited."""
    known = route.outbound.source_intentions.value
    if known is None:
        return
    denial = known.denial(_newest(route.outbound.credentials).credentials.leaf.id, callee)
    if denial is None:
        return
    if denial.audited:
        audited = Audited(reason=denial.reason, rule=denial.rule, intention=denial.intention)
        route.outbound.ledger.audit(connection, audited)
        return
    connection.rule, connection.intention = denial.rule, denial.intention
    raise NotServed(DENIALS[denial.reason], f"{callee}: {denial.rule}")


async def _take_refusal(
    transfer: Transfer, connection: Connection, route: _Route, candidate: Candidate
) -> None:
    """Raise NotServed to try the next candidate if no byte was passed on; else name the ending."""
    if transfer.ending is Ending.REFUSED:  # in a tunnel, which has said why
        _take_answer(transfer, connection, route, candidate)
        return
    outbound, expected = route.outbound, candidate.endpoint.expected
    ours = _newest(outbound.credentials).credentials.leaf.id
    refusal = await route.targets.refusals.explain(outbound.own_intentions, ours, expected)
    reason = OutboundReason.DENIED_BY_PEER if refusal.rule else OutboundReason.REFUSED_BY_PEER
    connection.rule = refusal.rule
    detail = refusal.text if refusal.known else f"{refusal.text}; {transfer.ending.value}: {transfer.detail}"
    if transfer.untouched:
        raise NotServed(reason, detail)
    if not refusal.rule:
        route.targets.failed(candidate)
    connection.end(reason, detail)


def _take_answer(transfer: Transfer, connection: Connection, route: _Route, candidate: Candidate) -> None:
    """Do the same where the far side has answered with a status, and the name of the reason."""
    reason, detail, blamed = name_refusal(transfer)
    if transfer.untouched:
        raise NotServed(reason, detail)
    if blamed:
        route.targets.failed(candidate)
    connection.end(reason, detail)


def _newest(contexts: Latest[Contexts]) -> Contexts:
    current = contexts.value
    assert current is not None  # looked at before the first attempt; a published value is never taken back
    return current


def _why_none_served(failed: list[FailedAttempt], route: _Route) -> NotServed:
    detail = "; ".join(map(str, failed))
    if route.search.late:
        text = f"not served within {route.targets.upstream.deadline:g} s"
        return NotServed(OutboundReason.DEADLINE, f"{text}; {detail}" if detail else text)
    if failed:
        reasons = {attempt.reason for attempt in failed}
        named = [one for one in (*REFUSALS, *DENIALS.values()) if reasons == {one}]
        return NotServed(named[0] if named else OutboundReason.ALL_FAILED, detail)
    known = [source.endpoints.value for source in route.targets.sources()]
    if all(endpoints is None for endpoints in known):
        return NotServed(OutboundReason.NO_ENDPOINTS_YET, "where the upstream is, is not known yet")
    if any(endpoints is not None and endpoints.tiers for endpoints in known):
        return NotServed(OutboundReason.NO_GATEWAYS, "no mesh gateway is known on the way")
    return NotServed(OutboundReason.NO_ENDPOINTS, "no instance is passing or warning")
