"""The checks of `sidecar doctor` of instances: those behind each upstream, and our own as callers find it.

The leaf is used in memory only, and no byte of an application is sent. To the far side an accepted handshake
is a connection that ends at once. The way to an instance is walked as by `sidecar ping` (agent.path.walk).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import msgspec
import trio

from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.cli.doctor_consul import answered
from agent.cli.findings import Finding, eased, fail, ok, refused, skip, warn
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.consul.api import Consul
from agent.consul.errors import ConsulError
from agent.consul.refusal import NODES, list_rules
from agent.consul.watch import AnswerRejected, WatchReason
from agent.control.deny_file import DenyFile, DenyFileUnusable
from agent.control.watches import own_intentions, read_endpoints, read_found
from agent.overview.stations import Light, Name, Station, first_red
from agent.path.walk import LOOKS_WRONG, Trip, Walk, take
from agent.policy.deny_list import NO_ENTRIES, DenyList
from certs.contexts import Contexts
from upstreams.choose import Chance
from upstreams.ejection import FailureMemory
from upstreams.endpoints import EndpointSet, Status
from upstreams.reach import Unreachable, doubt, reach
from upstreams.route import Candidate, RouteContext, candidates, dialled
from upstreams.spec import (
    Destination,
    Gateways,
    QueryDestination,
    ServiceDestination,
    TunnelMode,
    Upstream,
    WanMode,
)
from upstreams.travel import TravelReason

MOST_WAYS = 3  # candidates tried of one target
MAINTENANCE = ("_service_maintenance", "_node_maintenance")  # ids of Consul's checks

_KEPT = {status.value for status in Status if status.kept}


class _Check(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")
    check_id: str = msgspec.field(name="CheckID", default="")
    status: str = msgspec.field(name="Status", default="")
    output: str = msgspec.field(name="Output", default="")
    notes: str = msgspec.field(name="Notes", default="")


class _Service(msgspec.Struct):
    id: str = msgspec.field(name="ID")


class _Listed(msgspec.Struct):
    service: _Service = msgspec.field(name="Service")
    checks: list[_Check] = msgspec.field(name="Checks", default_factory=list)


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
    service: str = ""  # ours
    deny_list: DenyList = NO_ENTRIES
    tunnel: TunnelMode = TunnelMode.NEVER


def deny_list_of(settings: Settings) -> DenyList:
    """Return the list of the deny file; none if there is no file, or if it cannot be read."""
    file = DenyFile(settings.deny_file)
    with suppress(DenyFileUnusable):
        file.load()
    return file.list


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
    rule = list_rules(target.name)
    try:
        found = await endpoints_of(target, journey.consul)
        ways = await ways_of(found, upstream, journey)
    except ConsulError as error:
        return [refused(subject, error, rule)]
    except AnswerRejected as error:
        if error.reason == WatchReason.FILTERED:
            return [fail(subject, str(error), f"the token needs {rule}", ExitCode.PERMISSION)]
        return [fail(subject, str(error), "look at the registration of that instance")]
    if not ways:
        text, remedy = nowhere(target, found)
        text += still_used(upstream, journey.running)
        return [fail(subject, text, remedy, ExitCode.FAR_SIDE)]
    counted = f"{len(found.endpoints)} instances, {_alive(found)} passing or warning"
    findings = await in_order([_tried(subject, way, upstream, journey) for way in ways])
    return [skip(subject, f"{counted}; {len(ways)} tried"), *(one for each in findings for one in each)]


def still_used(upstream: Upstream, running: Mapping[str, Any]) -> str:
    """Return which vanished instances the running agent uses (`vanished_grace`), to end a text with."""
    rows = [row for row in _instances(upstream, running) if row["status"] in _KEPT]
    names = ", ".join(f"{row['instance']} ({row['status']})" for row in rows)
    return f"; the running agent still uses {names}" if names else ""


def _alive(found: EndpointSet) -> int:
    return sum(len(tier.endpoints) for tier in found.tiers)


def nowhere(target: Destination, found: EndpointSet) -> tuple[str, str]:
    """Return why there is no way to a target, and the remedy."""
    text = f"{len(found.endpoints)} instances, {_alive(found)} passing or warning"
    if _alive(found):
        remedy = "register a mesh gateway there, or set another mesh gateway mode"
        return f"{text}, and no mesh gateway is known on the way", remedy
    if found.endpoints:
        return text, "mend its checks, or end its maintenance: `sidecar doctor` beside it names the check"
    rules = list_rules(target.name)
    return text, f"register a sidecar for it there; if other callers find it, the token needs {rules}"


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
    """Walk to the far app as `sidecar ping` does, and return what is not green, or that all of it is."""
    if journey.contexts is None:
        return _undialled(subject, way, upstream, journey)
    walk = Walk(name=subject)
    walk.begin()
    await take(walk, way, trip_of(upstream, journey, journey.contexts))
    doubtful = [one for one in walk.passed if one.light is Light.AMBER]
    red = first_red(walk.passed)
    if red is not None:
        return [fail(subject, "; ".join(map(_said, (red, *doubtful))), red.remedy, red.code)]
    told = [_said(one) for one in walk.passed if one.name in (Name.ADDRESS, Name.TLS, Name.IDENTITY)]
    return [*(warn(subject, _said(one), one.remedy) for one in doubtful), ok(subject, "; ".join(told))]


def _said(station: Station) -> str:
    took = f", {station.seconds * 1000:.0f} ms" if station.name is Name.TLS and station.seconds else ""
    return f"{station.name.value}: {station.text}{took}"


def _undialled(subject: str, way: Candidate, upstream: Upstream, journey: Journey) -> list[Finding]:
    try:
        dialling = reach(way.hop, own_datacenter=journey.datacenter, wan=upstream.wan or journey.wan)
    except Unreachable as error:
        return [fail(subject, str(error), "register an address, or tagged_addresses.wan, for that instance")]
    address, odd = dialled(way, dialling), doubt(way.hop, dialling)
    findings = [] if odd is None or odd.avoided else [warn(subject, f"{odd.value}: {address}", LOOKS_WRONG)]
    return [*findings, skip(subject, f"{address} is not dialled: there is no leaf to show")]


def trip_of(upstream: Upstream, journey: Journey, contexts: Contexts) -> Trip:
    """Return what all ways to an upstream share."""
    return Trip(
        datacenter=journey.datacenter,
        wan=upstream.wan or journey.wan,
        contexts=contexts,
        clock=journey.clock,
        own_intentions=partial(own_intentions, journey.consul, journey.service),
        deny_list=journey.deny_list,
        upstream=upstream,
        tunnel=journey.tunnel,
        standing=_standing(upstream, journey.running),
    )


def _standing(upstream: Upstream, running: Mapping[str, Any]) -> Mapping[str, str]:
    """Return by instance why the running agent makes no tunnel there for now."""
    return {
        row["instance"]: row["travel_says"]
        for row in _instances(upstream, running)
        if row.get("travel") in (TravelReason.REFUSED, TravelReason.FULL)
    }


def _instances(upstream: Upstream, running: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of the instances that the running agent has for an upstream."""
    rows = [row for row in running.get("upstreams", ()) if row["bind"] == str(upstream.bind)]
    return [one for row in rows for target in row.get("targets", ()) for one in target["endpoints"]]


async def look_at_instance(registration: Registration, datacenter: str, consul: Consul) -> Sequence[Finding]:
    """Check whether callers find our own instance, if Consul has one registered: listed, and not critical."""
    if registration.public_bind is None or not registration.proxy_id or not datacenter:
        return []
    subject, own = "instance", ServiceDestination(registration.service)
    try:
        rows = (await answered(lambda: consul.endpoints(own))).value
        listed = [msgspec.json.decode(row, type=_Listed) for row in rows]
    except (ConsulError, msgspec.MsgspecError) as error:
        return [skip(subject, f"not known whether callers find it: {error}")]
    found = next((one for one in listed if one.service.id == registration.proxy_id), None)
    if found is None:
        text = f"callers do not find it: the list of {registration.service} lacks {registration.proxy_id}"
        remedy = f"the token needs {NODES}; with that right, see why the Consul agent does not sync"
        return [fail(subject, text, remedy, ExitCode.PERMISSION)]
    critical = next((one for one in found.checks if one.status == Status.CRITICAL), None)
    if critical is None:
        return [ok(subject, f"callers find {registration.proxy_id}: no check of it is critical")]
    if critical.check_id.startswith(MAINTENANCE):
        text = f"in maintenance ({critical.notes or 'no reason is given'}), so that callers do not find it"
        return [fail(subject, text, "end it: consul maint -disable -service=ID", ExitCode.FAR_SIDE)]
    text = f"callers do not find it, a check is critical: {critical.name}: {critical.output.strip()}"
    remedy = "mend what is checked, or the address in the check (Consul's default one probes 127.0.0.1)"
    return [fail(subject, text, remedy, ExitCode.FAR_SIDE)]
