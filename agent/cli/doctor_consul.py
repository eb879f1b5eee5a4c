"""The checks of `sidecar doctor` against Consul: reachability, registration, credentials, intentions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import trio

from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.base.watch_status import WatchStatus
from agent.cli.findings import Finding, State, fail, ok, refused, skip, warn
from agent.config.collisions import CHECK
from agent.config.effective import from_settings, listening_at, overridden, servable
from agent.config.opaque_config import Problem
from agent.config.parsers import ConsulAddress
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.api import Consul
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.refusal import missing_rule
from agent.consul.room import COUNTED
from agent.consul.token import TokenSource, TokenUnusable
from agent.consul.watch import AnswerRejected
from agent.control.bootstrap import Start
from agent.control.clock_skew import ClockSkew
from agent.control.own_addresses import look_up
from agent.control.watches import read_intentions, read_leaf, read_roots
from agent.intentions.default_policy import unnamed_caller, with_default
from agent.intentions.replica import Replica, ReplicaReason
from agent.policy.http_mode import HttpMode
from agent.policy.intentions import Intentions
from certs.contexts import build_contexts, rehearse
from certs.credentials import Credentials, CredentialsRejected, prove

T = TypeVar("T")

ASK_SECONDS = 5.0  # for one question: doctor reports the present state and does not wait for a better one
DAY = 86400.0
ROOT_DAYS = 30.0  # a root that expires sooner is a warning
LISTENERS = "listeners"  # the subject of one that collides with another
LEAST_LIFE = 0.1  # the share of a leaf's life that must be left; Consul renews long before
USUAL_LIMIT = 200  # limits.http_max_conns_per_client of a Consul agent (docs/consul-api.md#blocking-queries)
_ENOUGH = 0.9  # of the limit
_TABLES = ("tcp", "tcp6")


@dataclass(slots=True, kw_only=True)
class Examination:
    """What the checks share, and what they have found out; None where a check failed.

    `running`: `/status` of the running agent; empty when there is none.
    """

    settings: Settings
    consul: Consul
    token: TokenSource
    clock: Clock
    findings: list[Finding]
    datacenter: str = ""
    registration: Registration | None = None
    credentials: Credentials | None = None
    running: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_token(self) -> bool:
        """Whether a token is sent; it was read before."""
        return bool(self.token.current())

    def note(self, finding: Finding) -> bool:
        """Keep the finding; return whether it is no failure."""
        self.findings.append(finding)
        return finding.state is not State.FAIL


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Return the answer within ASK_SECONDS. Raises ConsulError."""
    with trio.move_on_after(ASK_SECONDS):
        return await call()
    raise ConsulError(ConsulReason.UNAVAILABLE, "Consul", f"no answer within {ASK_SECONDS:g} s")


async def look_at_consul(case: Examination) -> bool:
    """Check that Consul answers, how fast, and its clock; return whether further questions make sense."""
    address, settings = case.settings.http_addr, case.settings
    skew = ClockSkew(case.clock, lambda _seconds, _notable: None)
    case.consul.on_date = skew.take
    begun = trio.current_time()
    try:
        case.datacenter = (await answered(case.consul.datacenters))[0]
    except ConsulError as error:
        if error.unanswered:
            remedy = "start the Consul agent, or correct -http-addr, -ca-file and -tls-server-name"
            return case.note(fail("consul", f"{address}: {error.text}", remedy, ExitCode.UNAVAILABLE))
        return case.note(refused("consul", error, "to be known to Consul", given=case.has_token))
    took = (trio.current_time() - begun) * 1000
    tls = " over TLS" if address.tls else ""
    case.note(ok("consul", f"{address} answered{tls} in {took:.0f} ms, datacenter {case.datacenter}"))
    if address.tls and not settings.http_ssl_verify:
        case.note(warn("consul", "its certificate is not checked", "unset CONSUL_HTTP_SSL_VERIFY"))
    case.note(_clock(skew))
    case.findings += look_at_connections(address)
    return True


def _clock(skew: ClockSkew) -> Finding:
    if skew.seconds is None:
        return warn("clock", "Consul's answers have no Date", "compare the clocks by hand")
    found = f"Consul's is {skew.seconds:+.1f} s from ours"
    if skew.notable:
        return warn(
            "clock", found, "set both clocks by NTP: certificates are dated by one, judged by the other"
        )
    return ok("clock", found)


def look_at_token(case: Examination) -> bool:
    """Check where the token comes from, and that it can be read."""
    try:
        there = case.token.current()
    except TokenUnusable as fault:
        remedy = "give a file with -token-file that this user can read, and that holds one token on one line"
        return case.note(fail("token", str(fault), remedy, ExitCode.PERMISSION))
    source = case.settings.token_file or "-token or CONSUL_HTTP_TOKEN"
    return case.note(
        ok("token", f"from {source}" if there else "none is given: the anonymous token's rights")
    )


async def look_at_registration(case: Examination) -> bool:
    """Check that the registration exists and has no problems; with -service the settings make one."""
    settings = case.settings
    if settings.identity is IdentityKind.SERVICE:
        case.registration = await _servable(case, from_settings(settings))
        return case.note(ok("registration", f"none is needed: service {settings.service!r} by the settings"))
    start = Start(
        consul=case.consul,
        settings=settings,
        rng=Random(0),  # noqa: S311 - the pauses between questions
        on_failure=lambda _status: None,
        status=WatchStatus(name="registration"),
        clock=case.clock,
    )

    async def find() -> Registration:
        return await start.registration_of(await start.proxy_id())

    try:
        found = await answered(find)
    except AnswerRejected as error:
        return case.note(fail("registration", str(error), "without a registration use -service NAME"))
    except ConsulError as error:
        rule = missing_rule(error, settings.sidecar_for or "NAME")
        return case.note(refused("registration", error, rule, given=case.has_token))
    case.registration = await _servable(case, overridden(found, settings))
    for problem in found.problems:
        case.note(_of_problem(problem))
    text = f"{found.proxy_id}, sidecar of {found.service} ({found.service_id})"
    return case.note(ok("registration", text)) if not found.problems else True


def _of_problem(problem: Problem) -> Finding:
    """Return what is wrong with a registration; keys for another proxy are nothing wrong."""
    if problem.harmless:
        return ok("registration", f"{problem.where}: {problem.detail}")
    return warn("registration", str(problem), "correct the service definition and register it again")


async def _servable(case: Examination, configured: Registration) -> Registration:
    """Return the part of the registration that can be served; note the listeners that collide."""
    admin = case.settings.admin_bind
    effective = servable(configured, admin, await look_up(listening_at(configured, admin)))
    for problem in effective.problems[len(configured.problems) :]:
        remedy = "it is not served: change the registration, -listen, -upstream or -admin-bind"
        only_the_check = problem.where.startswith(CHECK)
        case.note(
            warn(LISTENERS, str(problem), "give the sidecar a check of its own address")
            if only_the_check
            else fail(LISTENERS, str(problem), remedy)
        )
    return effective


async def look_at_credentials(case: Examination, registration: Registration) -> bool:
    """Check that roots and leaf fit, by the agent's own proof; neither is kept."""
    rule = f'service "{registration.service}" {{ policy = "write" }}'
    subject = "roots"
    try:
        bundle = read_roots(await answered(case.consul.roots))
        ends = _days(bundle.active.not_after, case)
        trusted = f"Connect is enabled, {len(bundle.roots)} trusted, trust domain {bundle.trust_domain}"
        found = f"{trusted}, {ends:.1f} days left"
        late = warn(subject, found, "rotate the root (docs/trust.md): every leaf ends with it")
        case.note(ok(subject, found) if ends > ROOT_DAYS else late)
        subject = "leaf"
        leaf = read_leaf(await answered(lambda: case.consul.leaf(registration.service)))
    except ConsulError as error:
        return case.note(refused(subject, error, rule, given=case.has_token))
    except AnswerRejected as error:
        return case.note(fail(subject, str(error), "look at the CA provider of this datacenter"))
    try:
        credentials = prove(
            leaf,
            bundle,
            service=registration.service,
            datacenter=registration.datacenter or case.datacenter,
            at=case.clock(),
        )
        rehearse(build_contexts(credentials, 1))
    except CredentialsRejected as error:
        remedy = "see docs/trust.md for how leaf and roots must fit; a running agent keeps its old leaf"
        return case.note(fail(subject, f"{leaf.id} does not fit the roots: {error}", remedy))
    case.credentials = credentials
    left = _days(leaf.not_after, case)
    life = (leaf.not_after - leaf.not_before).total_seconds() / DAY
    found = f"{leaf.id} fits the roots, {left:.2f} days left, a chain of {1 + len(leaf.extra)}"
    if left < LEAST_LIFE * life:
        return case.note(
            warn(subject, found, "Consul should have renewed it: look at its log and at the primary")
        )
    return case.note(ok(subject, found))


async def look_at_intentions(case: Examination, registration: Registration) -> bool:
    """Check that the intentions can be read, and all of them understood."""
    rule = f'service "{registration.service}" {{ policy = "read" }} (which includes intentions = "read")'
    try:
        answer = await answered(lambda: case.consul.intentions(registration.service))
        listed = await read_intentions(registration.service, answer).run()
    except ConsulError as error:
        return case.note(refused("intentions", error, rule, given=case.has_token))
    except AnswerRejected as error:
        return case.note(fail("intentions", str(error), "correct the intention with that field"))
    caller = unnamed_caller("", registration.datacenter or case.datacenter)
    intentions = await with_default(listed, case.consul, caller)
    header = "X-Consul-Default-Acl-Policy" if answer.default_policy else "not stated (before 1.9), so denied"
    origin = ", ".join(filter(None, (header, intentions.default_origin)))
    found = f"{len(intentions.rules)} for {registration.service}, default {intentions.default} ({origin})"
    if intentions.default_unknown:
        rule = f'service "{registration.service}" {{ policy = "write" }}'
        remedy = f"callers that no intention names are denied; the token needs {rule}"
        return case.note(warn("intentions", found, remedy))
    if intentions.unsupported:
        remedy = "the sources they name are denied; write them in terms that this sidecar understands"
        return case.note(warn("intentions", f"{found}; not understood: {intentions.unsupported[0]}", remedy))
    unread = registration.http in (HttpMode.NEVER, HttpMode.UNSUPPORTED)
    if unread and any(one.permissions is not None for one in intentions.rules):
        remedy = 'set Config { protocol = "http" } on the proxy, else those callers are denied'
        return case.note(
            warn("intentions", f"{found}; some have permissions, protocol is {registration.protocol}", remedy)
        )
    case.note(ok("intentions", found))
    return case.note(await _replica(case, registration, intentions))


async def _replica(case: Examination, registration: Registration, intentions: Intentions) -> Finding:
    """Compare what our datacenter says with the primary."""
    credentials = case.credentials
    if credentials is None:
        return skip("replica", "not compared with the primary without credentials")
    own = registration.datacenter or case.datacenter
    replica = Replica(
        consul=case.consul,
        service=registration.service,
        datacenter=lambda: own,
        listed=lambda: intentions,
        bundle=lambda: credentials.bundle,
        primary=case.settings.primary_datacenter or "",
    )
    await replica.compare()
    reasons = {part.reason: part for part in replica.parts.values()}
    for reason, remedy in _REPLICA_REMEDIES.items():
        if reason in reasons:
            return warn("replica", f"{reason}: {reasons[reason].detail}{_age(case.running)}", remedy)
    if ReplicaReason.PRIMARY in reasons:
        return ok("replica", f"none: {own} is the primary datacenter")
    if ReplicaReason.PRIMARY_UNKNOWN in reasons:
        return skip("replica", "no datacenter shows that it is the primary: set primary_datacenter")
    return ok("replica", f"intentions and roots are those of the primary {replica.primary}")


def _age(running: Mapping[str, Any]) -> str:
    """Return since when the running agent has known the primary to say otherwise, to end a text with."""
    rows = (running.get("replica") or {}).items()
    ages = {name: row["confirmed_seconds_ago"] for name, row in rows if isinstance(row, Mapping)}
    told = [f"{name} {age:.0f} s" for name, age in ages.items() if age is not None]
    return f"; by the running agent the primary last said the same of {', '.join(told)} ago" if told else ""


_REPLICA_REMEDIES = {
    ReplicaReason.UNREACHABLE: "mend the way to the primary: what it denies meanwhile is still admitted here",
    ReplicaReason.BEHIND: "ask again; if it stays so, look at replication here and at its token",
    ReplicaReason.REFUSED: "give a token that the primary knows, with read on this service's intentions",
}


def _days(until: datetime, case: Examination) -> float:
    return (until - case.clock()).total_seconds() / DAY


def look_at_connections(address: ConsulAddress, tables: Path = Path("/proc/self/net")) -> list[Finding]:
    """Count the connections of this host to the agent; none for a unix socket, or where none can be seen."""
    if address.socket is not None:
        return []
    count = sum(port == address.port for table in _TABLES for port in _remote_ports(tables / table))
    found = f"this host has {count} to port {address.port}, and Consul allows {USUAL_LIMIT} of one address"
    if count < _ENOUGH * USUAL_LIMIT:
        return [ok("consul connections", found)]
    remedy = (
        "lower consul_connections of the sidecars, or raise limits.http_max_conns_per_client of the agent"
    )
    return [warn("consul connections", found, remedy)]


def _remote_ports(table: Path) -> Iterator[int]:
    """Yield the remote port of each connection that the agent counts."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        _, _, remote, state, *_ = line.split()
        if state in COUNTED:
            yield int(remote.rpartition(":")[2], 16)
