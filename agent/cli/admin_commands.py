"""`sidecar status`, `wait`, `rotate`, `log-level` and `drain`: requests to a running agent's admin endpoint.

Without -admin-bind they look for the instances that systemd started on this machine (agent.cli.instances).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from textwrap import indent
from typing import Any

import trio

from agent.base.address import Address
from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console, flag_usage, lights
from agent.cli.instances import (
    CALL_SECONDS,
    Instance,
    instances,
    named,
    only,
    status_of,
    unix_or_tcp,
)
from agent.config.flags import Arguments, Flag, parse_arguments
from agent.config.options import BY_NAME, LogLevel, Option
from agent.config.parsers import parse_bool, parse_seconds
from agent.consul.http import Client, Request, RequestFailed, Response
from agent.overview.summary import coloured

ADMIN = BY_NAME["admin_bind"]
JSON = Option(name="json", read=parse_bool, says="print the complete answer as JSON")
TIMEOUT = Option(
    name="timeout", read=parse_seconds, default=60.0, example="SECONDS", says="the longest time to wait"
)
WATCH = Option(name="watch", read=parse_bool, says="print it again every two seconds, until interrupted")
FLAGS = {
    "status": (ADMIN, JSON, WATCH),
    "wait": (ADMIN, TIMEOUT),
    "rotate": (ADMIN,),
    "log-level": (ADMIN,),
    "drain": (ADMIN,),
}
SAYS = {
    "status": "print the state of a running agent",
    "wait": "exit 0 once the agent is ready, 69 if it is not in time",
    "rotate": "ask Consul for a new leaf now; needs -admin-bind unix:/path",
    "log-level": "change the log level until the agent ends; needs -admin-bind unix:/path",
    "drain": "refuse new callers, let live connections finish, then exit; needs -admin-bind unix:/path",
}
FORM = "[INSTANCE]"
LEVEL_FORM = "debug|info|warn|error [INSTANCE]"
_WHERE = """\
INSTANCE is the NAME of a unit sidecar@NAME of this machine. Without it and without -admin-bind the command
goes to the one instance that runs; where there are several, `status` prints each of them."""
ROTATE_SECONDS = 20.0  # the agent itself waits 15 for Consul
_LOOK_SECONDS = 0.2
_WATCH_SECONDS = 2.0
_CLEAR = "\x1b[H\x1b[J"  # cursor home, erase below (ECMA-48 §8.3.21, §8.3.39)


def main(name: str, console: Console) -> int:
    """Run one of the five commands; return its exit code."""
    options = FLAGS[name]
    arguments = parse_arguments(console.words, [_flag(option) for option in options])
    if arguments.help_wanted:
        console.say(f"{flag_usage(name, SAYS[name], {'flags': options}, form_of(name))}\n\n{_WHERE}")
        return ExitCode.CLEAN
    level, arguments = _level(arguments) if name == "log-level" else (None, arguments)
    values, mistakes = _values(options, arguments, console.environ)
    if name == "log-level" and level is None:
        mistakes.append(f"say which level: {', '.join(LogLevel)}")
    values["level"] = level
    for mistake in mistakes:
        console.complain(mistake)
    if mistakes:
        return ExitCode.USAGE
    try:
        if arguments.words:
            values[ADMIN.name] = named(arguments.words[0]).address
        if name == "status" and values[ADMIN.name] is None and len(present := instances()) > 1:
            return trio.run(_statuses, console, present, values)
        values[ADMIN.name] = values[ADMIN.name] or only(instances())
    except Exit as error:
        console.complain(error.message)
        return error.code
    return trio.run(_talk, name, console, values)


def form_of(name: str) -> str:
    """Return the words of a command, as its usage shows them."""
    return LEVEL_FORM if name == "log-level" else FORM


def _level(arguments: Arguments) -> tuple[LogLevel | None, Arguments]:
    """Return the level that the first word names, None if it names none, and the arguments without it."""
    word, *others = (*arguments.words, "")
    level = LogLevel(word) if word in list(LogLevel) else None
    return level, replace(arguments, words=tuple(filter(None, others)))


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


async def _statuses(console: Console, present: Sequence[Instance], values: Mapping[str, Any]) -> int:
    show = partial(_status_of_all, console, present, bool(values["json"]))
    return await (_watched(console, show) if values["watch"] else show())


async def _watched(console: Console, show: Callable[[], Awaitable[int]]) -> int:
    """Show it again and again; on a terminal in place, else one after the other. Never returns."""
    terminal = console.out.isatty()
    while True:
        if terminal:
            console.out.write(_CLEAR)
        await show()
        if not terminal:
            console.say("")
        console.out.flush()
        await trio.sleep(_WATCH_SECONDS)


async def _status_of_all(console: Console, present: Sequence[Instance], whole: bool) -> int:
    """Print the status of each instance under its name; return the worst exit code."""
    worst, documents = ExitCode.CLEAN, dict[str, Any]()
    for instance in present:
        if not whole:
            console.say(f"{instance.name}:")
        try:
            documents[instance.name] = await status_of(instance.address)
        except Exit as error:
            console.complain(f"{instance.name}: {error.message}")
            worst = max(worst, error.code)
            continue
        if not whole:
            console.say(indent(coloured(documents[instance.name], lights(console)), "  "))
    if whole:
        console.say(json.dumps(documents, indent=2))
    return worst


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
        if name == "log-level":
            return await _set_level(console, client, values["level"])
        show = partial(_show_status, console, address, whole=bool(values["json"]))
        return await (_watched(console, show) if values.get("watch") else show())
    except Exit as error:
        console.complain(error.message)
        return error.code
    except RequestFailed as error:
        console.complain(f"no agent answers at {address} ({error})")
        return ExitCode.UNAVAILABLE
    finally:
        await client.aclose()


async def _show_status(console: Console, address: Address, *, whole: bool) -> int:
    document = await status_of(address)
    console.say(json.dumps(document, indent=2) if whole else coloured(document, lights(console)))
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


async def _set_level(console: Console, client: Client, level: LogLevel) -> int:
    request = Request(method="POST", target="/log-level", body=level.value.encode())
    response = await client.exchange(request, CALL_SECONDS)
    if response.status != 200:
        return _unexpected(console, response)
    console.say(response.body.decode("utf-8", "replace").strip())
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
