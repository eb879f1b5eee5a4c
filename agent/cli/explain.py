"""`sidecar explain`: may this source call that destination, and by which rule.

It asks the Consul agent, so that no sidecar needs to run; with `-running` it asks the running sidecar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import msgspec
import trio

from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console, flag_usage
from agent.cli.doctor_upstreams import endpoints_of
from agent.cli.instances import CALL_SECONDS, beside, read_beside, status_of, unix_or_tcp
from agent.config.flags import Flag, parse_arguments
from agent.config.load import RUN_FLAGS, exit_code, read_settings
from agent.config.options import CONFIG, CONSUL, OURS, POLICY, Option
from agent.config.parsers import parse_bool, parse_text
from agent.config.settings import Resolution, Settings
from agent.consul.api import Answer, Consul, RawList
from agent.consul.connect import consul_of
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.http import Client, Request, RequestFailed
from agent.consul.token import TokenSource
from agent.consul.watch import AnswerRejected
from agent.control.bootstrap import token_remedy
from agent.control.deny_file import DenyFile, DenyFileUnusable
from agent.control.watches import read_intentions
from agent.intentions.default_policy import unnamed_caller, with_default
from agent.intentions.replica import Replica, ReplicaReason
from agent.policy.authorize import Policy
from agent.policy.explain import Evidence, Inquiry, InvalidInquiry, Question, explain, question_of
from agent.policy.intentions import Intentions
from certs.bundle import BundleRejected, parse_roots
from upstreams.spec import ServiceDestination

ALLOWED, DENIED = 0, 1
_CODES = {
    ConsulReason.DENIED: ExitCode.PERMISSION,
    ConsulReason.MALFORMED: ExitCode.CONFIGURATION,
    ConsulReason.NOT_FOUND: ExitCode.CONFIGURATION,  # 1 means "denied"
}
SAYS = "say whether this source may call that destination, and by which rule; exit 0 allowed, 1 denied"

ASK = (
    Option(name="source", read=parse_text, flag_only=True, example="SERVICE[@DC]",
           says="the caller; a SPIFFE ID is taken too"),
    Option(name="destination", read=parse_text, flag_only=True, example="SERVICE[@DC]",
           says="the service called; with -running this is the sidecar's own service"),
    Option(name="method", read=parse_text, flag_only=True, example="GET",
           says="the method of an HTTP request; with -path"),
    Option(name="path", read=parse_text, flag_only=True, example="/x", says="the path of an HTTP request"),
    Option(name="header", read=parse_text, flag_only=True, example="'Name: value'", repeatable=True,
           says="a header of the HTTP request"),
    Option(name="serial", read=parse_text, flag_only=True, example="0a:7f",
           says="the serial of the caller's certificate"),
    Option(name="running", read=parse_bool, flag_only=True,
           says="ask the running agent (-admin-bind) instead of Consul"),
)  # fmt: skip
GROUPS = {"the question": ASK, "Consul": CONSUL, "settings": (CONFIG, *OURS, *POLICY)}


def main(_name: str, console: Console) -> int:
    """Print the explanation; return 0 for allowed, 1 for denied."""
    flags = [option.flag for option in ASK]
    resolution = _settings(console, (*RUN_FLAGS, *flags))
    if resolution is None:
        console.say(flag_usage("explain", SAYS, GROUPS))
        return ExitCode.CLEAN
    if resolution.settings is None:
        console.complain_of(resolution.mistakes)
        return exit_code(resolution)
    values = parse_arguments(console.words, (*RUN_FLAGS, *flags)).values
    try:
        inquiry = _inquiry(values)
        running = "running" in values
        ask = ask_agent if running else ask_consul
        allowed, text = trio.run(ask, inquiry, resolution.settings)
    except (Exit, InvalidInquiry) as error:
        console.complain(str(error))
        return error.code if isinstance(error, Exit) else ExitCode.USAGE
    console.say(text)
    return ALLOWED if allowed else DENIED


def _settings(console: Console, flags: Collection[Flag]) -> Resolution | None:
    """Read the settings; an agent that does not answer gives none, and Consul is asked all the same."""
    if "running" in parse_arguments(console.words, flags).values:  # the agent says all that counts
        return read_settings(console.words, console.environ, flags=flags, identity_required=False)
    try:
        resolution = read_beside(console.words, console.environ, flags, identity_required=False)
    except Exit as error:
        console.complain(f"{error.message}: without its settings")
        return read_settings(console.words, console.environ, flags=flags, identity_required=False)
    for note in () if resolution is None else resolution.notes:
        console.complain(note)
    return resolution


def _inquiry(values: Mapping[str, Sequence[str]]) -> Inquiry:
    names = ("source", "destination", "method", "path", "serial")
    texts = {name: values.get(name, ("",))[-1] for name in names}
    inquiry = Inquiry(**texts, headers=tuple(values.get("header", ())))
    if not inquiry.destination and "running" not in values:
        raise InvalidInquiry("say whom it calls: -destination SERVICE[@DC]")
    return inquiry


async def ask_agent(inquiry: Inquiry, settings: Settings) -> tuple[bool, str]:
    """Return the running agent's verdict and its explanation. Raises Exit."""
    address = beside(settings)
    client = Client(unix_or_tcp(address), host="localhost")
    body = msgspec.json.encode(inquiry)
    try:
        response = await client.exchange(Request(method="POST", target="/explain", body=body), CALL_SECONDS)
    except RequestFailed as error:
        raise Exit(ExitCode.UNAVAILABLE, f"no agent answers at {address} ({error})") from error
    finally:
        await client.aclose()
    if response.status != 200:
        text = response.body.decode("utf-8", "replace").strip()
        code = {400: ExitCode.USAGE, 503: ExitCode.UNAVAILABLE}.get(response.status, ExitCode.CONFIGURATION)
        raise Exit(code, f"the agent answered {response.status}: {text}")
    answer = msgspec.json.decode(response.body, type=dict[str, bool | str])
    return answer["allowed"] is True, str(answer["text"])


async def ask_consul(inquiry: Inquiry, settings: Settings) -> tuple[bool, str]:
    """Return verdict and explanation by Consul's intentions and our settings. Raises Exit, InvalidInquiry."""
    consul = consul_of(settings, TokenSource(settings.token, settings.token_file))
    deny_file = DenyFile(settings.deny_file)
    try:
        deny_file.load()
        own = (await consul.datacenters())[0]
        destination, _, datacenter = inquiry.destination.partition("@")
        roots = (await consul.roots()).value
        trust_domain = str(roots.get("TrustDomain", ""))
        question = question_of(inquiry, trust_domain, own)
        answer = await consul.intentions(destination, datacenter=datacenter if datacenter != own else None)
        listed = await read_intentions(destination, answer).run()
        policy = Policy(
            intentions=await with_default(listed, consul, unnamed_caller(trust_domain, own)),
            narrowings=settings.narrow or (),
            audit=settings.audit,
            datacenter=datacenter or own,
        )
        primary = await _beside_primary(consul, settings, listed, roots, datacenter or own)
        travel = await _travel(question, inquiry.destination, settings, consul)
    except DenyFileUnusable as error:
        raise Exit(ExitCode.CONFIGURATION, f"deny_file: {error}") from error
    except AnswerRejected as error:
        raise Exit(ExitCode.CONFIGURATION, str(error)) from error
    except ConsulError as error:
        service = inquiry.destination.partition("@")[0]
        remedy = token_remedy(settings, error, service)
        text = "; ".join(filter(None, (f"Consul does not tell: {error}", remedy)))
        raise Exit(_CODES.get(error.reason, ExitCode.UNAVAILABLE), text) from error
    finally:
        await consul.aclose()
    evidence = Evidence(
        policy=policy,
        default_origin=_default_origin(answer, settings),
        replica="; ".join(filter(None, (_replica(answer, settings), primary))),
        deny_list=deny_file.list,
        deny_origin=str(settings.deny_file or ""),
        travel=travel,
    )
    explanation = explain(question, evidence)
    return explanation.allowed, explanation.text


async def _travel(question: Question, destination: str, settings: Settings, consul: Consul) -> str:
    """Return how the call would travel: as the source's running agent says, else what the far side offers."""
    with suppress(Exit):
        document = await status_of(beside(settings))
        if (document.get("placement") or {}).get("service") == question.source.service:
            rows = [row for row in document["upstreams"] if row.get("upstream") == destination]
            ends = [end for row in rows for target in row["targets"] for end in target["endpoints"]]
            if known := Counter(end["travel_says"] for end in ends if end.get("travel_says")):
                return "; ".join(
                    f"{said}, to {count} of {len(ends)} instances" for said, count in known.items()
                )
    service, _, datacenter = destination.partition("@")
    try:
        found = await endpoints_of(ServiceDestination(service, datacenter or None), consul)
    except (ConsulError, AnswerRejected) as error:
        return f"not known whether it offers tunnels: {error}"
    offers = sum(one.tunnels for one in found.endpoints)
    return (
        f"{offers} of {len(found.endpoints)} instances offer tunnels; the caller's setting `tunnel` decides"
    )


def _default_origin(answer: Answer[RawList | None], settings: Settings) -> str:
    if not answer.default_policy:
        return f"for {settings.http_addr} tells none (before 1.9): what is unknown is denied"
    return f"X-Consul-Default-Acl-Policy of {settings.http_addr}"


async def _beside_primary(
    consul: Consul, settings: Settings, listed: Intentions, roots: Mapping[str, object], datacenter: str
) -> str:
    """Return whether the primary datacenter says the same; empty where that cannot be asked for."""
    try:
        bundle = parse_roots(roots)
    except BundleRejected:
        return ""
    replica = Replica(
        consul=consul,
        service=listed.destination,
        datacenter=lambda: datacenter,
        listed=lambda: listed,
        bundle=lambda: bundle,
        primary=settings.primary_datacenter or "",
    )
    await replica.compare()
    part = replica.parts["intentions"]
    match part.reason:
        case ReplicaReason.CURRENT:
            return f"the primary {replica.primary} says the same"
        case ReplicaReason.BEHIND:
            return f"behind the primary: {part.detail}"
        case ReplicaReason.UNREACHABLE | ReplicaReason.REFUSED:
            return f"not compared with the primary, {part.reason}: {part.detail}"
        case _:
            return ""


def _replica(answer: Answer[RawList | None], settings: Settings) -> str:
    contact = f", {answer.last_contact} ms behind its leader" if answer.last_contact else ""
    return f"index {answer.index} of {settings.http_addr}, read just now{contact}"
