"""`sidecar doctor`: checks everything that this workload's sidecar needs to serve, one line each.

It changes nothing, and what it fetches stays in memory. If an agent runs, its admin endpoint is asked too.
The output is plain text: rich, which the demo prints with, is not installed with the agent.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from agent import VERSION
from agent.base.address import TcpAddress, UnixAddress
from agent.base.clock import Clock, now
from agent.base.exits import Exit, ExitCode
from agent.base.undecodable import UNDECODABLE
from agent.cli.admin_commands import JSON
from agent.cli.console import RUN_GROUPS, Console, flag_usage
from agent.cli.doctor_consul import (
    Examination,
    look_at_consul,
    look_at_credentials,
    look_at_intentions,
    look_at_registration,
    look_at_token,
)
from agent.cli.doctor_upstreams import Journey, deny_list_of, in_order, look_at_instance, look_at_upstream
from agent.cli.findings import Finding, document, fail, ok, page, skip, warn, worst
from agent.cli.instances import CALL_SECONDS, Running, beside, read_beside, unix_or_tcp
from agent.config.collisions import bind_of
from agent.config.effective import from_settings
from agent.config.flags import parse_arguments
from agent.config.load import RUN_FLAGS, exit_code
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.connect import consul_of
from agent.consul.http import Client, Request, RequestFailed
from agent.consul.token import TokenSource
from agent.control.deny_file import DenyFile, DenyFileUnusable
from agent.net.bind import BindFailed, bind
from agent.net.dial import DialFailed, dial
from agent.net.own_listeners import OwnListeners
from agent.relay.close import reset
from agent.sandbox.report import is_started_by_systemd, shown
from certs.contexts import build_contexts
from upstreams.spec import Bind, LocalBind

SAYS = "check everything this sidecar needs to serve, one line each"
GROUPS = {**RUN_GROUPS, "the output": (JSON,)}
FEW_FILES = 4096  # each connection takes two: enough for about two thousand


def main(_name: str, console: Console) -> int:
    """Run every check and print the findings; return the exit code of the worst."""
    flags = (*RUN_FLAGS, JSON.flag)
    try:
        resolution = read_beside(console.words, console.environ, flags, identity_required=True)
    except Exit as error:
        console.complain(f"{error.message}; or give -sidecar-for ID")
        return error.code
    if resolution is None:
        console.say(flag_usage("doctor", SAYS, GROUPS))
        return ExitCode.CLEAN
    settings = resolution.settings
    if settings is None:
        code = exit_code(resolution)
        findings = [fail("settings", str(one), "see `sidecar help run`", code) for one in resolution.mistakes]
    else:
        findings = [warn("settings", note, "see `sidecar help run`") for note in resolution.notes]
        findings += trio.run(examine, settings, now)
    as_json = "json" in parse_arguments(console.words, flags).values
    code = worst(findings)
    console.say(document(findings) if as_json else page(findings))
    return code


async def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Return all findings, in the order of the checks."""
    of_agent: list[Finding] = []
    running = await look_at_agent(settings, of_agent)
    findings = [ok("settings", "valid"), look_at_files(running), *look_at_deny_file(settings), *of_agent]
    findings += look_at_sandbox(settings, running)
    token = TokenSource(settings.token, settings.token_file)
    try:
        consul = consul_of(settings, token)
    except Exit as error:
        return [
            *findings,
            fail("consul", error.message, "correct -ca-file, -client-cert, -client-key", error.code),
        ]
    case = Examination(settings=settings, consul=consul, token=token, clock=clock, findings=findings)
    case.running = running.document
    try:
        await _ask_consul(case)
        registration = case.registration or _by_settings(settings)
        if registration is None:
            findings.append(skip("listeners and upstreams", "not known without the registration"))
            return findings
        findings += [*another_agent(registration, running), *await look_at_listeners(registration, running)]
        findings += await look_at_instance(registration, case.datacenter, consul)
        findings += await _look_at_upstreams(case, registration, running)
    finally:
        await consul.aclose()
    return findings


async def _ask_consul(case: Examination) -> None:
    look_at_token(case)
    if not await look_at_consul(case):
        case.note(skip("registration, credentials, intentions", "Consul does not answer"))
        return
    if not await look_at_registration(case) or case.registration is None:
        case.note(skip("credentials, intentions", "not known whose without the registration"))
        return
    await look_at_credentials(case, case.registration)
    await look_at_intentions(case, case.registration)


def _by_settings(settings: Settings) -> Registration | None:
    return from_settings(settings) if settings.identity is IdentityKind.SERVICE else None


def look_at_files(running: Running) -> Finding:
    """Check the limit of open files of the running agent, and the one that an agent would have.

    An agent raises the soft limit to the hard one.
    """
    if running.hindered:
        return warn("open files", running.hindered.partition(": ")[2], "raise LimitNOFILE= or ulimit -Hn")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        return warn(
            "open files", f"at most {hard}, two for each connection", "raise LimitNOFILE= or ulimit -Hn"
        )
    return ok("open files", "unlimited" if hard == resource.RLIM_INFINITY else f"at most {hard}")


def look_at_deny_file(settings: Settings) -> list[Finding]:
    """Check that the deny file, if there is one, can be read."""
    if settings.deny_file is None:
        return []
    try:
        DenyFile(settings.deny_file).load()
    except DenyFileUnusable as error:
        return [fail("deny file", str(error), "correct it: an agent does not start without it")]
    return [ok("deny file", str(settings.deny_file))]


def look_at_sandbox(settings: Settings, running: Running) -> list[Finding]:
    """Say what the running agent may do; a warning if a unit has started it, which could confine it."""
    if not running.document:
        return []
    pid = running.document["pid"]
    try:
        (text, confined), by_unit = shown(pid, settings), is_started_by_systemd(pid)
    except OSError as error:
        return [skip("sandbox", f"{error.filename}: {error.strerror}; root can read it")]
    if not confined and not by_unit:
        return [skip("sandbox", f"{text}; no unit has started it, which would confine it")]
    remedy = "run it by the unit sidecar@.service, which takes away what it does not need"
    return [ok("sandbox", text) if confined else warn("sandbox", text, remedy)]


async def look_at_agent(settings: Settings, findings: list[Finding]) -> Running:
    """Ask the running agent for its status, if one answers."""
    try:
        address = beside(settings)
    except Exit as error:
        findings.append(skip("running agent", error.message))
        return Running()
    client = Client(unix_or_tcp(address), host="localhost")
    try:
        response = await client.exchange(Request(method="GET", target="/status"), CALL_SECONDS)
        document = msgspec.json.decode(response.body, type=dict[str, Any])
        findings += agent_findings(document)
    except (RequestFailed, *UNDECODABLE, KeyError) as error:
        remedy = "start it (systemctl start sidecar@NAME), or give its -admin-bind"
        findings.append(warn("running agent", f"none answers at {address} ({error})", remedy))
        return Running()
    finally:
        await client.aclose()
    return Running(document=document)


def agent_findings(document: Mapping[str, Any]) -> list[Finding]:
    """Return findings about readiness, version, complaints, leaf and failing watches of a running agent."""
    subject = f"running agent {document['pid']}"
    missing = "; ".join(document["missing"])
    findings = [
        ok(subject, "ready")
        if document["ready"]
        else fail(subject, f"not ready: {missing}", "mend what is missing", ExitCode.UNAVAILABLE)
    ]
    if document["version"] != VERSION:
        found = f"is of version {document['version']}, this is {VERSION}"
        findings.append(warn(subject, found, "restart it to run what is installed"))
    findings += [warn(subject, one, "see its log") for one in document["complaints"]]
    credentials = document["credentials"] or {}
    if credentials.get("expires_in_seconds", 1) <= 0:
        found, remedy = f"its leaf has expired at {credentials['not_after']}", "sidecar rotate says why not"
        findings.append(fail(subject, found, remedy))
    elif "not_after" in credentials:
        findings.append(ok(subject, f"its leaf lasts until {credentials['not_after']}"))
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for watch in document["watches"]:
        if watch["failing"] is not None:
            by_reason.setdefault(watch["failing"]["reason"], []).append(watch)
    remedy = "the last good values are in force; mend what Consul says"
    findings += [warn(subject, _failing(watches), remedy) for watches in by_reason.values()]
    return findings


def _failing(watches: Sequence[Mapping[str, Any]]) -> str:
    """Return one text for watches that fail for one reason, since they have one cause: an outage, say."""
    first = min(watches, key=lambda watch: str(watch["failing"]["since"]))
    ages = [watch["answered_seconds_ago"] for watch in watches if watch["answered_seconds_ago"] is not None]
    last = f"last answered {min(ages):.0f} s ago" if ages else "never answered"
    names = ", ".join(watch["name"] for watch in watches)
    verb = "fails" if len(watches) == 1 else "fail"
    return f"{names} {verb} since {first['failing']['since']}, {last}: {first['failing']['detail']}"


def another_agent(registration: Registration, running: Running) -> list[Finding]:
    """Return a warning if the agent that answers belongs to another proxy."""
    theirs = (running.document.get("placement") or {}).get("proxy_id", registration.proxy_id)
    if theirs == registration.proxy_id:
        return []
    found = f"it is {theirs}, not {registration.proxy_id}"
    return [warn(f"running agent {running.document['pid']}", found, "give the right one's -admin-bind")]


async def look_at_listeners(registration: Registration, running: Running) -> list[Finding]:
    """Check the public bind and the app behind it."""
    public = registration.public_bind
    if public is None:
        return [skip("public", "there is no port, so no public listener")]
    if registration.public_unserved:
        return [skip("public", "it is not served, see above"), await _look_at_app(registration)]
    held = await look_at_bind("public", LocalBind(public.host, public.port), running)
    return [held, await _look_at_app(registration)]


async def look_at_bind(subject: str, place: Bind, running: Running) -> Finding:
    """Check that an address is free, or held by the running agent.

    A socket file is neither made nor removed.
    """
    if crowd := running.crowd(place):
        remedy = "raise max_connections, start more instances, or see on the page who holds them"
        return warn(subject, f"{place} is full: {crowd}", remedy)
    if pressure := running.pressure(place):
        remedy = "raise max_handshakes, or see who connects from there and says nothing (ss -tn)"
        return warn(subject, f"{place}: {pressure}", remedy)
    if running.holds(place):
        return ok(subject, f"{place} is held by {running.who}")
    if elsewhere := running.instead_of(place):
        remedy = "give its socket unit (systemd) the address that callers look for"
        return fail(subject, f"{running.who} listens at {elsewhere} instead of {place}", remedy)
    if not isinstance(place, LocalBind):
        parent = Path(place.path).parent
        if parent.is_dir():
            return ok(subject, f"{place}: its directory is there")
        return fail(subject, f"{parent} is not a directory", "create it, writable for the sidecar")
    try:
        bound = await bind(TcpAddress(place.host, place.port), subject)
    except BindFailed as error:
        remedy = "no agent that answers at -admin-bind holds it (sidecar@.socket may, on purpose)"
        return fail(subject, str(error), remedy, error.code)
    bound.close()
    return ok(subject, f"{place} is free")


async def _look_at_app(registration: Registration) -> Finding:
    app = registration.local_app
    if app is None:
        return fail("app", "its address is not given", "set LocalServicePort, or -service-addr")
    try:
        shun = _own_listeners(registration).of_app
        reset(await dial(app, registration.local_connect_timeout, shun=shun))
    except DialFailed as error:
        place = "path" if isinstance(app, UnixAddress) else "address"
        remedy = f"start it, or correct its {place} in the registration or -service-addr"
        return fail("app", str(error), remedy, ExitCode.APP_DOWN)
    return ok("app", f"{app} takes connections")


def _own_listeners(registration: Registration) -> OwnListeners:
    """Return the listeners of the sidecar that serves this registration: the app is at none of them."""
    own = OwnListeners()
    if registration.public_bind is not None and not registration.public_unserved:
        own.reserve(registration.public_bind, "callers from the mesh")
    for upstream in registration.upstreams:
        own.reserve(bind_of(upstream), f"upstream {upstream.destination}")
    for one in registration.exposed:
        own.reserve(one.bind, f"exposed path {one.path}")
    return own


async def _look_at_upstreams(
    case: Examination, registration: Registration, running: Running
) -> Sequence[Finding]:
    """Check the binds one after the other, then all upstreams in parallel."""
    ups, paths = registration.upstreams, registration.exposed
    binds: list[tuple[str, Bind]] = [(f"upstream {one.destination}", one.bind) for one in ups]
    binds += [(f"exposed path {one.path}", LocalBind(one.bind.host, one.bind.port)) for one in paths]
    findings = [await look_at_bind(who, place, running) for who, place in binds]
    if not case.datacenter:
        return findings
    journey = Journey(
        consul=case.consul,
        datacenter=registration.datacenter or case.datacenter,
        wan=case.settings.wan_addresses,
        contexts=None if case.credentials is None else build_contexts(case.credentials, 1),
        clock=case.clock,
        running=running.document,
        service=registration.service,
        deny_list=deny_list_of(case.settings),
        tunnel=case.settings.tunnel,
    )
    found = await in_order([partial(look_at_upstream, one, journey) for one in registration.upstreams])
    findings += [finding for each in found for finding in each]
    return findings
