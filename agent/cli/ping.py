"""`sidecar ping UPSTREAM`: walks the path from our app to the upstream's, and says where it ends.

It walks with a leaf of its own from the same Consul agent, in memory only, and sends no byte of an
application; to the far app it is a connection that ends at once. The stations are in agent.overview.stations.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import trio

from agent.base.clock import Clock, now
from agent.base.exits import Exit, ExitCode
from agent.cli.admin_commands import JSON
from agent.cli.console import Console, flag_usage, lights
from agent.cli.doctor import GROUPS, look_at_agent
from agent.cli.doctor_consul import (
    LISTENERS,
    Examination,
    look_at_consul,
    look_at_credentials,
    look_at_registration,
    look_at_token,
)
from agent.cli.doctor_upstreams import (
    Journey,
    deny_list_of,
    endpoints_of,
    nowhere,
    still_used,
    trip_of,
    ways_of,
)
from agent.cli.findings import Finding, State, refused
from agent.cli.instances import Running, read_beside
from agent.config.flags import parse_arguments
from agent.config.load import RUN_FLAGS, exit_code
from agent.config.registration import Registration
from agent.config.settings import Mistake, Settings
from agent.consul.connect import consul_of
from agent.consul.errors import ConsulError
from agent.consul.refusal import list_rules
from agent.consul.token import TokenSource
from agent.consul.watch import AnswerRejected
from agent.overview import stations
from agent.overview.headline import rough
from agent.overview.stations import Name, Station
from agent.path.walk import Walk, take
from certs.contexts import build_contexts
from upstreams.endpoints import EndpointSet
from upstreams.route import Candidate
from upstreams.spec import Destination, Upstream

FORM = "UPSTREAM"
SAYS = "walk the path to an upstream station by station, and name the first that is red"


def main(_name: str, console: Console) -> int:
    """Walk, print the picture; return the exit code by the class of the first red station."""
    flags = (*RUN_FLAGS, JSON.flag)
    arguments = parse_arguments(console.words, flags)
    word = next(iter(arguments.words), "")
    words = [one for one in console.words if one != word] if word else console.words
    try:
        resolution = read_beside(words, console.environ, flags, identity_required=True)
    except Exit as error:
        console.complain(f"{error.message}; or give -sidecar-for ID")
        return error.code
    if resolution is None:
        console.say(flag_usage("ping", SAYS, GROUPS, FORM))
        return ExitCode.CLEAN
    if resolution.settings is None or not word:
        unnamed = () if word else (Mistake(origin=None, text="say which upstream: sidecar ping UPSTREAM"),)
        console.complain_of((*unnamed, *resolution.mistakes))
        return exit_code(resolution) or ExitCode.USAGE
    for note in resolution.notes:
        console.complain(note)
    walk = Walk(name=word)
    trio.run(walk_to, walk, resolution.settings, now)
    _print(walk, console, as_json="json" in arguments.values)
    return stations.exit_code(walk.passed)


def _print(walk: Walk, console: Console, *, as_json: bool) -> None:
    title = f"{walk.who} to {walk.name}"
    if not as_json:
        console.say(stations.picture(title, walk.passed, lights(console)))
        return
    rows = [stations.row(one) for one in stations.complete(walk.passed)]
    said = {"path": title, "exit": int(stations.exit_code(walk.passed)), "stations": rows}
    console.say(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())


async def walk_to(walk: Walk, settings: Settings, clock: Clock) -> None:
    """Walk from our app to the far one."""
    walk.begin()
    running = await look_at_agent(settings, [])
    if placement := running.document.get("placement"):  # where Consul does not say who we are
        walk.who = f"{placement['service']}@{placement['datacenter'] or '?'}"
    token = TokenSource(settings.token, settings.token_file)
    try:
        consul = consul_of(settings, token)
    except Exit as error:
        walk.red(Name.CONSUL, error.message, "correct -ca-file, -client-cert, -client-key", error.code)
        return
    case = Examination(settings=settings, consul=consul, token=token, clock=clock, findings=[])
    try:
        known = await _ask_consul(walk, case)
        registration = case.registration
        upstream = None if registration is None else _named(walk, registration)
        _look_at_sidecar(walk, running, settings, upstream)
        if known and registration is not None and upstream is not None:
            await _go(walk, case, running, upstream)
    finally:
        await consul.aclose()


async def _ask_consul(walk: Walk, case: Examination) -> bool:
    """Pass Consul: it answers, knows us, and gives us a leaf that fits its roots."""
    settings = case.settings
    known = look_at_token(case) and await look_at_consul(case) and await look_at_registration(case)
    known = known and case.registration is not None
    if known and case.registration is not None:
        walk.who = f"{case.registration.service}@{case.registration.datacenter or case.datacenter}"
        known = await look_at_credentials(case, case.registration)
    if _failed(walk, Name.CONSUL, [one for one in case.findings if one.subject != LISTENERS]):
        return False
    beside = next((one for one in case.findings if one.subject == LISTENERS), None)
    if beside is not None:  # of another listener: of ours, the first station or the sidecar's is red
        walk.amber(Name.CONSUL, beside.found, beside.remedy)
        return known
    leaf = case.credentials.leaf if case.credentials is not None else None
    left = "" if leaf is None else f", leaf {rough(_seconds_left(leaf.not_after, case.clock))}"
    walk.green(Name.CONSUL, f"{settings.http_addr} in {case.datacenter}{left}")
    return known


def _seconds_left(until: datetime, clock: Clock) -> float:
    return max(0.0, (until - clock()).total_seconds())


def _named(walk: Walk, registration: Registration) -> Upstream | None:
    """Return the upstream that is meant: by destination, by the name alone, or by its bind."""
    mine = registration.upstreams
    for texts in (
        [str(one.destination) for one in mine],
        [str(one.bind) for one in mine],
        [one.destination.name for one in mine],
    ):
        if texts.count(walk.name) == 1:
            upstream = mine[texts.index(walk.name)]
            walk.name = str(upstream.destination)
            walk.green(Name.APP, f"{registration.service} calls {upstream.bind}", timed=False)
            return upstream
    known = ", ".join(str(one.destination) for one in mine) or "there is none"
    remedy = "add it to the registration's upstreams, or give -upstream"
    text = f"{walk.name!r} names no upstream of {registration.service}, or several: {known}"
    walk.red(Name.APP, text, remedy, ExitCode.CONFIGURATION)
    return None


def _look_at_sidecar(walk: Walk, running: Running, settings: Settings, upstream: Upstream | None) -> None:
    if not running.document:
        at = settings.admin_bind[0]
        remedy = "start it (systemctl start sidecar@NAME), or give its -admin-bind"
        walk.red(Name.SIDECAR, f"no agent answers at {at}", remedy, ExitCode.UNAVAILABLE)
        return
    missing = "; ".join(running.document["missing"])
    if upstream is not None and not running.holds(upstream.bind):
        instead = running.instead_of(upstream.bind) or "nowhere"
        text = f"{running.who} listens {instead}, not at {upstream.bind}{f': {missing}' if missing else ''}"
        remedy = "compare `sidecar status` with the registration; is it the agent of this service?"
        walk.red(Name.SIDECAR, text, remedy, ExitCode.CONFIGURATION)
    elif upstream is not None and (crowd := running.crowd(upstream.bind)):
        remedy = "raise max_connections, or see on the page who holds them"
        walk.red(Name.SIDECAR, f"{upstream.bind} is full: {crowd}", remedy, ExitCode.UNAVAILABLE)
    elif running.hindered:
        walk.amber(Name.SIDECAR, f"{running.who}: {running.hindered}; raise it")
    elif missing:
        walk.amber(Name.SIDECAR, f"{running.who} is not ready: {missing}")
    else:
        walk.green(Name.SIDECAR, f"pid {running.document['pid']} is ready, and listens there", timed=False)


async def _go(walk: Walk, case: Examination, running: Running, upstream: Upstream) -> None:
    registration = case.registration
    assert case.credentials is not None  # Consul was passed
    assert registration is not None
    contexts, datacenter = build_contexts(case.credentials, 1), registration.datacenter or case.datacenter
    journey = Journey(
        consul=case.consul,
        datacenter=datacenter,
        wan=case.settings.wan_addresses,
        contexts=contexts,
        clock=case.clock,
        service=registration.service,
        deny_list=deny_list_of(case.settings),
        tunnel=case.settings.tunnel,
        running=running.document,
    )
    trip = trip_of(upstream, journey, contexts)
    walk.begin()
    ways = await _look_for(walk, upstream, journey)
    before, first = list(walk.passed), list[Station]()
    for number, way in enumerate(ways):
        walk.passed = list(before)
        if await take(walk, way, trip, number):
            return
        first = first or walk.passed
    walk.passed = first or walk.passed


async def _look_for(walk: Walk, upstream: Upstream, journey: Journey) -> Sequence[Candidate]:
    """Return the ways to the first target that has one; note it in red if none has."""
    found: list[tuple[Destination, EndpointSet]] = []
    for target in upstream.targets:
        try:
            endpoints = await endpoints_of(target, journey.consul)
            ways = await ways_of(endpoints, upstream, journey)
        except ConsulError as error:
            _failed(walk, Name.ADDRESS, [refused(f"upstream {target}", error, list_rules(target.name))])
            return ()
        except AnswerRejected as error:
            remedy = "look at the registration of that instance, and at the rights of the token"
            walk.red(Name.ADDRESS, str(error), remedy, ExitCode.CONFIGURATION)
            return ()
        if ways:
            return ways
        found.append((target, endpoints))
    told = [(target, *nowhere(target, endpoints)) for target, endpoints in found]
    text = "; ".join(f"{target}: {said}" for target, said, _ in told)
    text += still_used(upstream, journey.running)
    walk.red(Name.ADDRESS, text, told[0][2], ExitCode.FAR_SIDE)
    return ()


def _failed(walk: Walk, name: Name, findings: Sequence[Finding]) -> bool:
    """Note the first failure among findings of doctor, if there is one; return whether there is."""
    for finding in findings:
        if finding.state is State.FAIL:
            subject = "" if finding.subject == name.value else f"{finding.subject}: "
            walk.red(name, f"{subject}{finding.found}", finding.remedy, finding.code)
            return True
    return False
