"""`sidecar migrate`: what will differ from Consul's own proxy and from Envoy, for a live registration.

It asks the Consul agent, changes nothing, and opens no connection to an upstream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import trio

from agent.base.clock import Clock, now
from agent.base.exits import Exit, ExitCode
from agent.cli.admin_commands import JSON
from agent.cli.console import RUN_GROUPS, Console, flag_usage
from agent.cli.doctor_consul import (
    Examination,
    answered,
    look_at_consul,
    look_at_registration,
    look_at_token,
)
from agent.cli.doctor_upstreams import endpoints_of
from agent.cli.findings import Finding, State, fail, ok, refused, warn, worst
from agent.config.flags import parse_arguments
from agent.config.load import RUN_FLAGS, exit_code, read_settings
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Mistake, Settings
from agent.consul.connect import consul_of
from agent.consul.errors import ConsulError
from agent.consul.refusal import missing_rule
from agent.consul.token import TokenSource
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_intentions
from agent.migration.effects import BUILT_IN, always, of_registration
from agent.policy.http_mode import HttpMode
from agent.policy.intentions import Intentions
from upstreams.endpoints import Endpoint
from upstreams.reach import AddressWarning, Unreachable, doubt, reach
from upstreams.spec import Upstream, WanMode

SAYS = "say what will differ from Consul's own proxy and from Envoy, for a live registration"
GROUPS = {**RUN_GROUPS, "the output": (JSON,)}
_WHICH = "say which registration: -sidecar-for ID or -proxy-id ID; -service has none to compare"
_MOST_TOLD = 5  # instances of one upstream that are told one by one


def main(_name: str, console: Console) -> int:
    """Print the differences; return the exit code of the worst part that is not served or not known."""
    flags = (*RUN_FLAGS, JSON.flag)
    resolution = read_settings(console.words, console.environ, flags=flags)
    if resolution is None:
        console.say(flag_usage("migrate", SAYS, GROUPS))
        return ExitCode.CLEAN
    settings = resolution.settings
    if settings is None or settings.identity is IdentityKind.SERVICE:
        console.complain_of(resolution.mistakes or (Mistake(origin=None, text=_WHICH),))
        return exit_code(resolution) or ExitCode.USAGE
    findings = trio.run(compare, settings, now)
    code = worst(findings)
    if "json" in parse_arguments(console.words, flags).values:
        rows = {"exit": int(code), "findings": [finding.row for finding in findings]}
        console.say(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        console.say(text_of(findings))
    return code


def text_of(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, and a last one with the counts."""
    counts = Counter(finding.state for finding in findings)
    last = f"{counts[State.WARN]} differ, {counts[State.FAIL]} not served"
    return "\n".join([*map(str, findings), last])


async def compare(settings: Settings, clock: Clock) -> list[Finding]:
    """Return what differs, in the order of the registration."""
    token = TokenSource(settings.token, settings.token_file)
    try:
        consul = consul_of(settings, token)
    except Exit as error:
        return [fail("consul", error.message, "correct -ca-file, -client-cert, -client-key", error.code)]
    case = Examination(settings=settings, consul=consul, token=token, clock=clock, findings=[])
    try:
        known = look_at_token(case) and await look_at_consul(case) and await look_at_registration(case)
        registration = case.registration
        if not known or registration is None:
            return [one for one in case.findings if one.state is State.FAIL]
        return await _compared(case, registration)
    finally:
        await consul.aclose()


async def _compared(case: Examination, registration: Registration) -> list[Finding]:
    proxy_id = registration.proxy_id
    try:
        answer = (await answered(lambda: case.consul.service(proxy_id))).value
    except ConsulError as error:
        return [refused("registration", error, missing_rule(error, registration.service))]
    who = f"{proxy_id}, sidecar of {registration.service} ({registration.service_id})"
    findings = [ok("registration", who), *of_registration(answer, registration)]
    findings += await look_at_permissions(case, registration)
    for upstream in registration.upstreams:
        findings += await look_at_addresses(case, upstream)
    return [*findings, *always(", ".join(map(str, case.settings.admin_bind)))]


async def look_at_permissions(case: Examination, registration: Registration) -> Sequence[Finding]:
    """Say which callers are judged otherwise, by the intentions as they are now."""
    service = registration.service
    try:
        answer = await answered(lambda: case.consul.intentions(service))
        intentions = await read_intentions(service, answer).run()
    except ConsulError as error:
        return [refused("intentions", error, missing_rule(error, service))]
    except AnswerRejected as error:
        return [fail("intentions", str(error), "correct the intention with that field")]
    return list(judged(registration, intentions))


def judged(registration: Registration, intentions: Intentions) -> Iterator[Finding]:
    """Yield what differs by the intentions."""
    if intentions.unsupported:
        found = f"not understood, so their sources are denied: {'; '.join(intentions.unsupported)}"
        yield warn("intentions", found, "Envoy may admit them: write them in terms understood here")
    some = sum(one.permissions is not None for one in intentions.rules)
    if not some:
        return
    if registration.http in (HttpMode.NEVER, HttpMode.UNSUPPORTED):
        found = f"{some} have permissions, and the protocol is {registration.protocol}: callers are denied"
        yield warn("intentions", found, 'set Config { protocol = "http" } on the proxy')
    else:
        found = f"{some} have permissions: each request is judged, as by Envoy; it admits no such caller"
        yield warn(f"intentions, beside {BUILT_IN}", found, "")


async def look_at_addresses(case: Examination, upstream: Upstream) -> list[Finding]:
    """Say which instances of an upstream are dialled at another address than the one that Consul answers."""
    findings: list[Finding] = []
    wan = upstream.wan or case.settings.wan_addresses
    for target in upstream.targets:
        subject = f"upstream {target}"
        try:
            found = await endpoints_of(target, case.consul)
        except ConsulError as error:
            findings.append(refused(subject, error, missing_rule(error, target.name)))
            continue
        except AnswerRejected as error:
            findings.append(fail(subject, str(error), "look at the registration of that instance"))
            continue
        texts = [elsewhere(endpoint, case.datacenter, wan) for endpoint in found.endpoints]
        subject = f"{subject}, beside {BUILT_IN}"
        findings += [warn(subject, text, "") for text in _few([text for text in texts if text])]
    return findings


def _few(texts: Sequence[str]) -> Sequence[str]:
    if len(texts) <= _MOST_TOLD:
        return texts
    return [*texts[:_MOST_TOLD], f"{len(texts) - _MOST_TOLD} more instances are dialled at other addresses"]


def elsewhere(endpoint: Endpoint, own_datacenter: str, wan: WanMode) -> str:
    """Return how the address that is dialled here differs from the answered one; empty where it does not."""
    host = endpoint.service_address or endpoint.node_address
    answer = f"{host}:{endpoint.port}"
    try:
        dialling = reach(endpoint, own_datacenter=own_datacenter, wan=wan)
    except Unreachable as error:
        return f"{endpoint}: not dialled here ({error.reason.value}); it dials {answer}"
    if doubt(endpoint, dialling) is AddressWarning.MIXED_PAIR:
        mixed = f"{AddressWarning.MIXED_PAIR.value}, the address of one pair and the port of another"
        return f"{endpoint}: it dials {answer} ({mixed}); here {dialling}"
    if (dialling.host, dialling.port) == (host, endpoint.port):
        return ""
    return f"{endpoint}: it dials {answer}; here {dialling}"
