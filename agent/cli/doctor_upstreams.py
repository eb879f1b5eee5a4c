"""The checks of `sidecar doctor` behind each upstream: instances, the chosen address, a handshake.

The leaf is used in memory only, and no byte of an application is sent. To the far side an accepted handshake
is a connection that ends at once. A refusal by its intentions is seen here as a refusal, without the reason.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.base.latest import Latest
from agent.cli.doctor_consul import answered, refused
from agent.cli.findings import Finding, eased, fail, ok, skip, warn
from agent.consul.api import Consul
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected, WatchReason
from agent.control.watches import read_endpoints, read_found
from agent.net.dial import DialFailed, dial
from agent.net.handshake import HandshakeFailed, client_handshake
from agent.outbound.identify import identify, server_name
from agent.outbound.reasons import NotServed
from agent.path.walk import DIAL_SECONDS, HANDSHAKE_SECONDS, cipher_of, refusal_of
from agent.policy.deny_list import NO_ENTRIES
from agent.relay.close import reset
from certs.contexts import Contexts
from certs.peer import PeerRejected
from upstreams.choose import Chance
from upstreams.ejection import FailureMemory
from upstreams.endpoints import EndpointSet, Status
from upstreams.reach import AddressWarning, Unreachable, doubt, reach
from upstreams.route import Candidate, RouteContext, candidates, dialled
from upstreams.spec import Destination, Gateways, QueryDestination, Upstream, WanMode

MOST_WAYS = 3  # candidates tried of one target

_KEPT = {status.value for status in Status if status.kept}
_ODD = {
    AddressWarning.PRIVATE_ADDRESS: (
        "register tagged_addresses.wan, or see that this address is reached from here"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """What the checks of all upstreams share. `contexts` None: endpoints are looked up and not dialled.

    `running`: `/status` of the running agent; empty when there is none.
    """

    consul: Consul
    datacenter: str
    wan: WanMode
    contexts: Contexts | None
    clock: Clock
    running: Mapping[str, Any] = field(default_factory=dict)


async def look_at_upstream(upstream: Upstream, journey: Journey) -> Sequence[Finding]:
    """Check an upstream's targets in parallel; if one candidate serves, failures of others are warnings."""
    found = await in_order([_bound(_look_at_target, upstream, one, journey) for one in upstream.targets])
    return eased([finding for findings in found for finding in findings])


async def in_order(calls: Sequence[Callable[[], Awaitable[Sequence[Finding]]]]) -> list[Sequence[Finding]]:
    """Run all calls in parallel; return their results in the order of the calls."""
    results: list[Sequence[Finding]] = [()] * len(calls)

    async def do(place: int) -> None:
        results[place] = await calls[place]()

    async with trio.open_nursery() as nursery:
        for place in range(len(calls)):
            nursery.start_soon(do, place)
    return results


def _bound(
    look: Callable[[Upstream, Destination, Journey], Awaitable[Sequence[Finding]]],
    upstream: Upstream,
    target: Destination,
    journey: Journey,
) -> Callable[[], Awaitable[Sequence[Finding]]]:
    return lambda: look(upstream, target, journey)


async def _look_at_target(upstream: Upstream, target: Destination, journey: Journey) -> Sequence[Finding]:
    subject = f"upstream {target}"
    rule = f'service "{target.name}" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'
    try:
        found = await endpoints_of(target, journey.consul)
        ways = await ways_of(found, upstream, journey)
    except ConsulError as error:
        return [refused(subject, error, rule)]
    except AnswerRejected as error:
        if error.reason == WatchReason.FILTERED:
            return [fail(subject, str(error), f"the token needs {rule}", ExitCode.PERMISSION)]
        return [fail(subject, str(error), "look at the registration of that instance")]
    alive = sum(len(tier.endpoints) for tier in found.tiers)
    counted = f"{len(found.endpoints)} instances, {alive} passing or warning"
    if not ways:
        counted += still_used(upstream, journey.running)
        remedy = (
            "register a sidecar for it there, mend its checks, see that the token may read it"
            if not alive
            else "no mesh gateway is known on the way: register one, or set another mesh gateway mode"
        )
        return [fail(subject, counted, remedy, ExitCode.FAR_SIDE)]
    findings = await in_order([_tried(subject, way, upstream, journey) for way in ways])
    return [skip(subject, f"{counted}; {len(ways)} tried"), *(one for each in findings for one in each)]


def still_used(upstream: Upstream, running: Mapping[str, Any]) -> str:
    """Return which vanished instances the running agent uses (`vanished_grace`), to end a text with."""
    targets = [
        target
        for row in running.get("upstreams", ())
        if row["bind"] == str(upstream.bind)
        for target in row.get("targets", ())
    ]
    rows = [row for target in targets for row in target["endpoints"] if row["status"] in _KEPT]
    names = ", ".join(f"{row['instance']} ({row['status']})" for row in rows)
    return f"; the running agent still uses {names}" if names else ""


async def endpoints_of(target: Destination | Gateways, consul: Consul) -> EndpointSet:
    """Return the present endpoints of a target. Raises ConsulError, AnswerRejected."""
    if isinstance(target, QueryDestination):
        return read_found(target, await answered(lambda: consul.execute(target)))
    if isinstance(target, Gateways):
        health = await answered(lambda: consul.gateways(target.datacenter))
    else:
        health = await answered(lambda: consul.endpoints(target))
    return await read_endpoints(target, health).run()


async def ways_of(found: EndpointSet, upstream: Upstream, journey: Journey) -> Sequence[Candidate]:
    """Return the first few distinct candidates in the order in which the agent would try them."""
    gateways: dict[str, EndpointSet] = {}
    context = RouteContext(
        own_datacenter=journey.datacenter,
        mode=upstream.mesh_gateway,
        gateways=gateways.get,
        failures=FailureMemory(trio.current_time),
        chance=Chance(Random(0)),  # noqa: S311 - which instances are tried
        loads={},
    )
    for endpoint in found.endpoints[:1]:
        crossing = context.gateway_datacenter(endpoint)
        if crossing is not None:
            gateways[crossing] = await endpoints_of(Gateways(crossing), journey.consul)
    return _first_of_each(candidates([(0, found)], context))


def _first_of_each(ways: Iterable[Candidate]) -> Sequence[Candidate]:
    distinct: dict[object, Candidate] = {}
    for way in ways:
        if len(distinct) == MOST_WAYS:
            break
        distinct.setdefault((way.endpoint.expected, way.hop.key), way)
    return list(distinct.values())


def _tried(
    subject: str, way: Candidate, upstream: Upstream, journey: Journey
) -> Callable[[], Awaitable[Sequence[Finding]]]:
    return lambda: _try(f"{subject}, {way}", way, upstream, journey)


async def _try(subject: str, way: Candidate, upstream: Upstream, journey: Journey) -> Sequence[Finding]:
    try:
        dialling = reach(way.hop, own_datacenter=journey.datacenter, wan=upstream.wan or journey.wan)
    except Unreachable as error:
        remedy = "register an address, or tagged_addresses.wan, for that instance"
        return [fail(subject, str(error), remedy)]
    address, odd = dialled(way, dialling), doubt(way.hop, dialling)
    findings = [] if odd is None or odd.avoided else [warn(subject, f"{odd.value}: {address}", _ODD[odd])]
    if journey.contexts is None:
        return [*findings, skip(subject, f"{address} is not dialled: there is no leaf to show")]
    try:
        sock = await dial(TcpAddress(dialling.host, dialling.port), DIAL_SECONDS)
    except DialFailed as error:
        remedy = "see that it runs, and that no firewall or NAT is on the way to this very address"
        return [*findings, fail(subject, f"{address}: {error}", remedy, ExitCode.FAR_SIDE)]
    try:
        return [*findings, await _shake_hands(subject, address, way, sock, journey)]
    finally:
        reset(sock)


async def _shake_hands(
    subject: str, address: str, way: Candidate, sock: socket.socket, journey: Journey
) -> Finding:
    contexts = journey.contexts
    assert contexts is not None  # `_try` has returned without contexts
    begun = trio.current_time()
    name = server_name(way.endpoint.expected, contexts.credentials.bundle.trust_domain)
    try:
        tls = await client_handshake(sock, contexts.client, name, HANDSHAKE_SECONDS)
        peer = identify(tls, way.endpoint.expected, Latest(contexts), journey.clock(), Latest(NO_ENTRIES))
    except HandshakeFailed as error:
        remedy = "see what that sidecar's log says of us, and that it trusts the same roots"
        return fail(subject, f"{address}: {error}", remedy, ExitCode.FAR_SIDE)
    except (PeerRejected, NotServed) as error:
        remedy = "another service answers at this address: correct the registration, the NAT or its leaf"
        return fail(subject, f"{address}: {error}", remedy)
    took = (trio.current_time() - begun) * 1000
    cipher = cipher_of(tls)
    refusal = await refusal_of(tls, sock)
    if refusal:
        remedy = "its intentions deny us, or its app is down: ask `sidecar explain`, and its log"
        return fail(
            subject, f"{address}: refused after the handshake ({refusal})", remedy, ExitCode.PERMISSION
        )
    return ok(subject, f"{address}: {peer.id} as expected, {cipher}, handshake in {took:.0f} ms")
