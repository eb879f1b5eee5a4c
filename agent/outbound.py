"""One outbound connection, from top to bottom: a candidate, its address, its identity, and only then our app.

Candidates are tried one after the other until one serves. A failure before the first application byte tries
the next; after it, never: nobody knows what the far side has done with the bytes.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from random import Random

from OpenSSL import SSL

from agent.handshake import HandshakeFailed, client_handshake, verified_chain
from agent.latest import Latest
from agent.ledger import Connection, Direction, FailedAttempt, Ledger
from agent.legs import DialFailed, dial, part, remote, reset, tune
from agent.registration import TcpAddress
from agent.relay import Relay
from agent.splice import Ending, Transfer
from certs.contexts import Contexts
from certs.peer import Peer, PeerRejected, verify_peer
from certs.spiffe import DEFAULT, TrustDomain
from upstreams.choose import candidates
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, ExpectedIdentity
from upstreams.reach import Dialling, Unreachable, reach
from upstreams.spec import Upstream, WanMode

MAX_ATTEMPTS = 8  # candidates tried for one connection: our app has long given up by then

Clock = Callable[[], datetime]


class OutboundReason(StrEnum):
    """Why an app's connection to an upstream was not served."""

    NO_CREDENTIALS_YET = "no_credentials_yet"
    NO_ENDPOINTS_YET = "no_endpoints_yet"  # the first answer has not come
    NO_ENDPOINTS = "no_endpoints"
    WRONG_IDENTITY = "wrong_identity"
    REFUSED_BY_PEER = "refused_by_peer"
    ALL_FAILED = "all_failed"


class NotServed(Exception):
    """This candidate, or the whole connection, cannot be served."""

    def __init__(self, reason: OutboundReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """What every attempt of one connection shares."""

    upstream: Upstream
    endpoints: Latest[EndpointSet]
    contexts: Latest[Contexts]
    own_datacenter: str
    wan: WanMode
    failures: FailureMemory
    loads: Counter[EndpointKey]
    rng: Random
    clock: Clock
    relay: Relay
    ledger: Ledger
    handshake_timeout: float


async def serve_outbound(
    sock: socket.socket,
    *,
    upstream: Upstream,
    endpoints: Latest[EndpointSet],
    contexts: Latest[Contexts],
    own_datacenter: str,
    failures: FailureMemory,
    loads: Counter[EndpointKey],
    relay: Relay,
    ledger: Ledger,
    rng: Random,
    clock: Clock,
    handshake_timeout: float,
    wan: WanMode = WanMode.AUTO,
) -> None:
    """Serve one accepted, non-blocking socket of our app to its end, and close it. Times in seconds.

    `failures` and `loads` are shared by all connections of the upstream; this keeps both.
    """
    route = _Route(
        upstream=upstream,
        endpoints=endpoints,
        contexts=contexts,
        own_datacenter=own_datacenter,
        wan=wan,
        failures=failures,
        loads=loads,
        rng=rng,
        clock=clock,
        relay=relay,
        ledger=ledger,
        handshake_timeout=handshake_timeout,
    )
    try:
        destination = str(upstream.destination)
        with ledger.open(Direction.OUTBOUND, remote(sock), destination) as connection:
            try:
                tune(sock)
                await _serve(sock, route, connection)
            except NotServed as failure:
                connection.end(failure.reason, failure.detail)
    finally:
        reset(sock)  # unless it has been closed: our app must not take a failure for an end


async def _serve(sock: socket.socket, route: _Route, connection: Connection) -> None:
    failed: list[FailedAttempt] = []
    for endpoint in _candidates(route):
        address = "no address"
        try:
            dialling = reach(endpoint, own_datacenter=route.own_datacenter, wan=route.wan)
            address = str(dialling)
            await _attempt(sock, route, connection, endpoint, dialling)
        except (Unreachable, DialFailed, HandshakeFailed, PeerRejected, NotServed) as failure:
            route.failures.failed(endpoint)
            detail = str(failure) if isinstance(failure, Unreachable) else failure.detail
            attempt = FailedAttempt(
                endpoint=str(endpoint), address=address, reason=failure.reason, detail=detail
            )
            failed.append(attempt)
            route.ledger.attempt_failed(connection, attempt)
        else:
            return
    raise _none_left(failed)


def _candidates(route: _Route) -> Iterator[Endpoint]:
    endpoints = route.endpoints.value
    if endpoints is None:
        raise NotServed(OutboundReason.NO_ENDPOINTS_YET, "where the upstream is, is not known yet")
    if route.contexts.value is None:
        raise NotServed(OutboundReason.NO_CREDENTIALS_YET, "there is no certificate to show yet")
    return islice(_each_once(candidates(endpoints, route.failures, route.rng, route.loads)), MAX_ATTEMPTS)


def _each_once(endpoints: Iterator[Endpoint]) -> Iterator[Endpoint]:
    """The order is found out as we go, and one that has just failed may come up again as a last resort."""
    tried: set[EndpointKey] = set()
    for endpoint in endpoints:
        if endpoint.key not in tried:
            tried.add(endpoint.key)
            yield endpoint


async def _attempt(
    sock: socket.socket, route: _Route, connection: Connection, endpoint: Endpoint, dialling: Dialling
) -> None:
    """Serve the connection by this candidate. If this raises, not a byte of our app has been taken."""
    connection.peer = None
    ending: Ending | None = None
    with _counted(route.loads, endpoint.key), ExitStack() as last:
        tcp = await dial(TcpAddress(dialling.host, dialling.port), route.upstream.connect_timeout)
        last.callback(lambda: part(None, tcp, ending))
        tls = await _handshake(tcp, route, endpoint.expected)
        connection.peer = _identify(tls, route, endpoint.expected)
        connection.dialled = str(dialling)
        route.failures.succeeded(endpoint)
        connection.relaying()
        transfer = await route.relay.run(sock, tls, connection.progress)
        ending = transfer.ending
        if _refused(transfer):
            _take_refusal(transfer, connection, route, endpoint)
        else:
            connection.end(transfer.ending, transfer.detail)
        part(sock, None, ending)


@contextmanager
def _counted(loads: Counter[EndpointKey], key: EndpointKey) -> Iterator[None]:
    loads[key] += 1
    try:
        yield
    finally:
        loads[key] -= 1
        if not loads[key]:
            del loads[key]  # endpoints come and go


async def _handshake(tcp: socket.socket, route: _Route, expected: ExpectedIdentity) -> SSL.Connection:
    current = _newest(route.contexts)
    name = server_name(expected, current.credentials.bundle.trust_domain)
    return await client_handshake(tcp, current.client, name, route.handshake_timeout)


def _identify(tls: SSL.Connection, route: _Route, expected: ExpectedIdentity) -> Peer:
    """The peer, if it is who that endpoint must be, by the roots of this moment; else raise."""
    bundle = _newest(route.contexts).credentials.bundle
    peer = verify_peer(verified_chain(tls), bundle, route.clock())
    if not expected.matches(peer.id):
        detail = f"expected spiffe://{bundle.trust_domain}{expected}, it is {peer.id}"
        raise NotServed(OutboundReason.WRONG_IDENTITY, detail)
    return peer


def server_name(expected: ExpectedIdentity, trust_domain: TrustDomain) -> str:
    """The SNI by which a mesh gateway would find that service (contract §8.4); harmless elsewhere."""
    if expected.partition == DEFAULT:
        return f"{expected.service}.{expected.namespace}.{expected.datacenter}.internal.{trust_domain}"
    names = (expected.service, expected.namespace, expected.partition, expected.datacenter)
    return f"{'.'.join(names)}.internal-v1.{trust_domain}"


def _refused(transfer: Transfer) -> bool:
    """With TLS 1.3 our handshake ends before the far side has judged us: its refusal is our first read.

    An orderly end without a byte is none: so does an app that closes an idle connection.
    """
    return transfer.ending is not Ending.CLEAN and transfer.tls_ended_first and transfer.to_plain == 0


def _take_refusal(transfer: Transfer, connection: Connection, route: _Route, endpoint: Endpoint) -> None:
    """Leave it to the next candidate if nothing was said yet; else name the ending."""
    detail = f"{transfer.ending.value}: {transfer.detail}"
    if transfer.untouched:
        raise NotServed(OutboundReason.REFUSED_BY_PEER, detail)
    route.failures.failed(endpoint)
    connection.end(OutboundReason.REFUSED_BY_PEER, detail)


def _newest(contexts: Latest[Contexts]) -> Contexts:
    current = contexts.value
    assert current is not None  # looked at before the first attempt; a published value is never taken back
    return current


def _none_left(failed: list[FailedAttempt]) -> NotServed:
    if not failed:
        return NotServed(OutboundReason.NO_ENDPOINTS, "no instance is passing or warning")
    refused = all(attempt.reason is OutboundReason.REFUSED_BY_PEER for attempt in failed)
    reason = OutboundReason.REFUSED_BY_PEER if refused else OutboundReason.ALL_FAILED
    return NotServed(reason, "; ".join(map(str, failed)))
