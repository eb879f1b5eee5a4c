"""`sidecar status`, `wait`, `rotate` and `drain`: requests to a running agent's admin endpoint.

Without -admin-bind they look for the instances that systemd started on this machine (agent.cli.instances).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import trio

from agent.base.address import Address, UnixAddress
from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console, flag_usage
from agent.cli.instances import Instance, instances, named, only
from agent.config.flags import Arguments, Flag, parse_arguments
from agent.config.options import BY_NAME, Option
from agent.config.parsers import parse_bool, parse_seconds
from agent.consul.http import Client, Dial, Request, RequestFailed, Response

ADMIN = BY_NAME["admin_bind"]
JSON = Option(name="json", read=parse_bool, says="print the complete answer as JSON")
TIMEOUT = Option(
    name="timeout", read=parse_seconds, default=60.0, example="SECONDS", says="the longest time to wait"
)
FLAGS = {"status": (ADMIN, JSON), "wait": (ADMIN, TIMEOUT), "rotate": (ADMIN,), "drain": (ADMIN,)}
SAYS = {
    "status": "print the state of a running agent",
    "wait": "exit 0 once the agent is ready, 69 if it is not in time",
    "rotate": "ask Consul for a new leaf now; needs -admin-bind unix:/path",
    "drain": "refuse new callers, let live connections finish, then exit; needs -admin-bind unix:/path",
}
FORM = "[INSTANCE]"
_WHERE = """\
INSTANCE is the NAME of a unit sidecar@NAME of this machine. Without it and without -admin-bind the command
goes to the one instance that runs; where there are several, `status` prints each of them."""
CALL_SECONDS = 10.0
ROTATE_SECONDS = 20.0  # the agent itself waits 15 for Consul
_LOOK_SECONDS = 0.2


def main(name: str, console: Console) -> int:
    """Run one of the four commands; return its exit code."""
    options = FLAGS[name]
    arguments = parse_arguments(console.words, [_flag(option) for option in options])
    if arguments.help_wanted:
        console.say(f"{flag_usage(name, SAYS[name], {'flags': options}, FORM)}\n\n{_WHERE}")
        return ExitCode.CLEAN
    values, mistakes = _values(options, arguments, console.environ)
    for mistake in mistakes:
        console.complain(mistake)
    if mistakes:
        return ExitCode.USAGE
    try:
        if arguments.words:
            values[ADMIN.name] = named(arguments.words[0]).address
        if name == "status" and values[ADMIN.name] is None and len(present := instances()) > 1:
            return trio.run(_status_of_all, console, present, bool(values["json"]))
        values[ADMIN.name] = values[ADMIN.name] or only(instances())
    except Exit as error:
        console.complain(error.message)
        return error.code
    return trio.run(_talk, name, console, values)


def _values(
    options: Sequence[Option], arguments: Arguments, environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the value of each option, and the mistakes. `admin_bind` is None where it was not given."""
    mistakes = [*arguments.mistakes, *(f"what is {word!r} for?" for word in arguments.words[1:])]
    values: dict[str, Any] = {}
    for option in options:
        texts = arguments.values.get(option.flag_name) or (environ.get(option.variable) or "").split()
        default = None if option is ADMIN else option.default
        try:
            values[option.name] = option.read(texts[0]) if texts else default
        except ValueError as error:
            mistakes.append(f"-{option.flag_name}: {error}")
    if arguments.words and ADMIN.flag_name in arguments.values:
        word = arguments.words[0]
        mistakes.append(f"{word!r} and -{ADMIN.flag_name}: only one of them says where the agent is")
    return values, mistakes


def _flag(option: Option) -> Flag:
    return Flag(name=option.flag_name, switch=option.switch)


async def _status_of_all(console: Console, present: Sequence[Instance], whole: bool) -> int:
    """Print the status of each instance under its name; return the worst exit code."""
    worst, documents = ExitCode.CLEAN, dict[str, Any]()
    for instance in present:
        if not whole:
            console.say(f"{instance.name}:")
        try:
            documents[instance.name] = await _document(instance.address)
        except Exit as error:
            console.complain(f"{instance.name}: {error.message}")
            worst = max(worst, error.code)
            continue
        if not whole:
            console.say(indent(summary(documents[instance.name]), "  "))
    if whole:
        console.say(json.dumps(documents, indent=2))
    return worst


async def _document(address: Address) -> Mapping[str, Any]:
    """Return the `/status` of one agent. Raises Exit."""
    client = Client(unix_or_tcp(address), host="localhost")
    try:
        response = await client.exchange(Request(method="GET", target="/status"), CALL_SECONDS)
    except RequestFailed as error:
        raise Exit(ExitCode.UNAVAILABLE, f"no agent answers at {address} ({error})") from error
    finally:
        await client.aclose()
    if response.status != 200:
        text = response.body.decode("utf-8", "replace").strip()
        code = ExitCode.PERMISSION if response.status == 403 else ExitCode.FAILED
        raise Exit(code, f"the agent answered {response.status}: {text}")
    document: Mapping[str, Any] = json.loads(response.body)
    return document


async def _talk(name: str, console: Console, values: Mapping[str, Any]) -> int:
    address = values[ADMIN.name]
    client = Client(unix_or_tcp(address), host="localhost")
    try:
        if name == "wait":
            return await _wait(console, client, values["timeout"])
        if name == "rotate":
            return await _rotate(console, client)
        if name == "drain":
            return await _drain(console, client)
        return _print_status(console, await _document(address), whole=bool(values["json"]))
    except Exit as error:
        console.complain(error.message)
        return error.code
    except RequestFailed as error:
        console.complain(f"no agent answers at {address} ({error})")
        return ExitCode.UNAVAILABLE
    finally:
        await client.aclose()


def unix_or_tcp(address: Address) -> Dial:
    """Return the function that connects to an admin endpoint."""

    async def dial() -> trio.abc.Stream:
        if isinstance(address, UnixAddress):
            return await trio.open_unix_socket(address.path)
        return await trio.open_tcp_stream(address.host, address.port)

    return dial


def _print_status(console: Console, document: Mapping[str, Any], *, whole: bool) -> int:
    console.say(json.dumps(document, indent=2) if whole else summary(document))
    return ExitCode.CLEAN


async def _wait(console: Console, client: Client, seconds: float) -> int:
    missing = "no agent answers"
    with trio.move_on_after(seconds):
        while True:
            try:
                response = await client.exchange(Request(method="GET", target="/ready"), CALL_SECONDS)
                if response.status == 200:
                    return ExitCode.CLEAN
                missing = response.body.decode("utf-8", "replace").strip()
            except RequestFailed as error:
                missing = f"no agent answers ({error})"
            await trio.sleep(_LOOK_SECONDS)
    console.complain(f"not ready within {seconds:g} s: {missing}")
    return ExitCode.UNAVAILABLE


async def _rotate(console: Console, client: Client) -> int:
    response = await client.exchange(Request(method="POST", target="/rotate"), ROTATE_SECONDS)
    if response.status not in (200, 502):
        return _unexpected(console, response)
    answer = json.loads(response.body)
    if response.status == 502:
        console.complain(f"{answer['result']}: {answer['detail']}; {answer['serial']} stays in force")
        return ExitCode.UNAVAILABLE
    console.say(
        f"{answer['detail'] or 'a new leaf'}: {answer['serial']} until {answer['not_after']},"
        f" generation {answer['generation']}"
    )
    return ExitCode.CLEAN


async def _drain(console: Console, client: Client) -> int:
    response = await client.exchange(Request(method="POST", target="/drain"), CALL_SECONDS)
    if response.status != 202:
        return _unexpected(console, response)
    console.say(response.body.decode("utf-8", "replace").strip())
    return ExitCode.CLEAN


def _unexpected(console: Console, response: Response) -> int:
    text = response.body.decode("utf-8", "replace").strip()
    console.complain(f"the agent answered {response.status}: {text}")
    return ExitCode.PERMISSION if response.status == 403 else ExitCode.FAILED


def summary(document: Mapping[str, Any]) -> str:
    """Return the summary for a person; `-json` prints everything."""
    missing = "; ".join(document["missing"])
    lines = [f"{document['phase']}, {'ready' if document['ready'] else f'not ready: {missing}'}"]
    lines += [f"attention   {complaint}" for complaint in document["complaints"]]
    credentials = document["credentials"] or {}
    if "id" in credentials:
        lines.append(f"identity    {credentials['id']}")
        generation = f"generation {credentials['generation']}"
        lines.append(f"leaf        {credentials['serial']} until {credentials['not_after']}, {generation}")
        lines.append(f"roots       {_roots(credentials['roots'])}")
    if credentials.get("churning"):
        lines.append(f"churning    {credentials['churning']}")
    if credentials.get("clock_skew_notable"):
        skew = credentials["clock_skew_seconds"]
        side = "ahead of" if skew > 0 else "behind"
        lines.append(f"clock       Consul's is {abs(skew)} s {side} ours")
    if credentials.get("rejected"):
        lines.append(f"rejected    {credentials['rejected']['reason']}: {credentials['rejected']['detail']}")
    public = document["public"]
    if public is not None:
        lines.append(f"public      {', '.join(public['addresses'])}, {public['live']} live")
    for upstream in document["upstreams"]:
        lines += _upstream_lines(upstream)
    for watch in document["watches"]:
        if watch["failing"] is not None:
            lines.append(
                f"failing     {watch['name']} since {watch['failing']['since']}: {watch['failing']['detail']}"
            )
    for direction, endings in document["counters"]["endings"].items():
        text = ", ".join(f"{reason} {count}" for reason, count in endings.items())
        lines.append(f"{direction:11} {text or 'nothing yet'}")
    return "\n".join(lines)


def _roots(roots: Sequence[Mapping[str, Any]]) -> str:
    """Return how many roots are trusted, and the id of the one that signs leaves now, as Consul prints it."""
    active = ", ".join(root["id"] for root in roots if root["active"])
    return f"{len(roots)} trusted, active {active}"


def _upstream_lines(upstream: Mapping[str, Any]) -> list[str]:
    listener = upstream["listener"] or {}
    problem = listener.get("problem")
    lines = [
        f"upstream    {upstream['destination']} on {upstream['bind']}{f': {problem}' if problem else ''}"
    ]
    for target in upstream["targets"]:
        if len(upstream["targets"]) > 1:
            active = ", where new connections go" if target["target"] == upstream["active"] else ""
            lines.append(f"            {target['target']}{active}")
        lines += [f"              {line}" for line in _instance_lines(target)]
    warm = upstream.get("warm") or {}  # an older agent does not report it
    if warm.get("wanted"):
        given_up = "".join(f", {count} {reason}" for reason, count in sorted(warm["discarded"].items()))
        text = f"{len(warm['ready'])} of {warm['wanted']} ready, {warm['used']} used, {warm['missed']} missed"
        lines.append(f"              warm: {text}{given_up}")
    return lines


def _instance_lines(target: Mapping[str, Any]) -> list[str]:
    if target["source"] is None:
        return ["Consul has not said where it is"]
    return [
        f"{endpoint['instance']} at {endpoint['address'] or 'no address'} ({endpoint['why']}),"
        f" {endpoint['status']}"
        for endpoint in target["endpoints"]
    ] or ["no instance"]
