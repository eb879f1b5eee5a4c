"""Makes docs/reference.md from the code: `make reference` writes it, `tests/test_reference.py` holds it.

Settings, flags and exit codes come from the tables that the program works by; metrics and events from the
syntax trees of the calls that make them; reasons from the meanings that the page at `/` shows.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.base.exits import ExitCode
from agent.config.options import CONFIG, OPTIONS, Option
from agent.deployment.flags import usages
from agent.deployment.manual import EXITS
from agent.observe.status import SCHEMA

Function = ast.FunctionDef | ast.AsyncFunctionDef
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
_WRITERS = ("write", "_ended", "_warm")
_KINDS = ("gauge", "counter", "histogram")

# /status, top level: what each field tells. The test holds that there are no others.
STATUS = {
    "schema": "the version of this form; raised when a field goes or changes its meaning",
    "headline": "the state in one line, problems first",
    "health": "`ok`, `degraded` (it serves, and something is wrong) or `failing`",
    "version": "of the program",
    "pid": "of the process that answers",
    "phase": "`starting`, `serving` or `draining`",
    "ready": "what `/ready` says",
    "missing": "what keeps it from being ready, one text each",
    "started": "when, UTC",
    "uptime_seconds": "since the start",
    "settings": "each setting in force, with its origin; secrets are not shown",
    "placement": "the registration in force",
    "credentials": "leaf and roots in force, renewals and rejections",
    "intentions": "the rules about our callers and the default policy",
    "outgoing": "the rules that deny our own calls, with `judge_outbound`",
    "policy": "what decides about callers beside intentions",
    "consul": "the connections to the Consul agent, and the watches that share them",
    "replica": "how old the replica of intentions and roots is, in a secondary datacenter",
    "watches": "each question to Consul: answers, age, failures",
    "public": "the public listener and its limits",
    "upstreams": "each upstream: targets, instances with address, why, and how calls travel, limits",
    "connections": "live connections, at most a thousand",
    "connections_not_shown": "how many more there are",
    "tunnels": "live tunnels: peer, direction, generation, age, streams that are open and those so far",
    "recent": "the last hundred ended connections",
    "counters": "endings, calls by the other end, requests, bytes",
    "admin": "the addresses of the admin endpoint",
    "complaints": "what an operator must not overlook although the agent serves",
    "last_run": "which values are those of the last run, until Consul answers",
    "workers": "only with `workers` above 1: each process",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family: its name, its kind, its line of help."""

    name: str
    kind: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the log: its name, its levels, and the first line of the docstring of what writes it."""

    name: str
    levels: str
    says: str


def metrics() -> list[Metric]:
    """Return every metric, by name."""
    found = {}
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _KINDS and len(node.args) == 2:
                name, says = (_text(argument, tree) for argument in node.args)
                found[name] = Metric(name=name, kind=node.func.id, says=says)  # type: ignore[attr-defined]  # by the line above
    return [found[name] for name in sorted(found) if name]


def events() -> list[Event]:
    """Return every event of the log, by name."""
    found: dict[str, Event] = {}
    for tree in _trees():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for event in _written_in(function):
                    found.setdefault(event.name, event)
    return [found[name] for name in sorted(found)]


def _written_in(function: Function) -> Iterator[Event]:
    says = (ast.get_docstring(function) or "").partition("\n")[0]
    inside = list(ast.walk(function))
    levels = {node.attr.lower() for node in inside if isinstance(node, ast.Attribute) and _is_level(node)}
    for name in _names(inside):
        yield Event(name=name, levels=", ".join(sorted(levels)), says=says)


def _is_level(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "LogLevel"


def _names(inside: Sequence[ast.AST]) -> set[str]:
    """Return the events that a function writes: given in the call, or chosen together with the level."""
    calls = [node for node in inside if isinstance(node, ast.Call) and len(node.args) > 1]
    writing = [call for call in calls if getattr(call.func, "attr", "") in _WRITERS]
    seconds = [call.args[1] for call in writing]
    if writing:
        for choice in (node for node in inside if isinstance(node, ast.IfExp)):
            pairs = [one for one in (choice.body, choice.orelse) if isinstance(one, ast.Tuple)]
            seconds += [pair.elts[1] for pair in pairs if len(pair.elts) == 2]
    texts = {node.value for node in seconds if isinstance(node, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and text}


def _trees() -> Iterator[ast.Module]:
    for path in sorted((ROOT / "agent").rglob("*.py")):
        yield ast.parse(path.read_text())


def _text(node: ast.expr, tree: ast.Module) -> str:
    """Return the text of an argument, by name if it is a constant of its module."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    named = node.id if isinstance(node, ast.Name) else ""
    assigned = (one for one in tree.body if isinstance(one, ast.Assign))
    for one in (one for one in assigned if isinstance(one.value, ast.Constant)):
        if named in [target.id for target in one.targets if isinstance(target, ast.Name)]:
            return str(ast.literal_eval(one.value))
    return ""


def reasons() -> dict[str, str]:
    """Return the meaning of every reason."""
    found: dict[str, str] = json.loads((ROOT / "agent" / "page" / "reasons.json").read_text())
    return found


def page() -> str:
    """Return the page."""
    parts = [
        "# Reference",
        "This page is made from the code by `make reference`, and a test holds it to the code.",
        "## Settings",
        "The name is the key of the settings file; the flag is the same with dashes.",
        _table(("setting", "variable", "default", ""), map(_setting, (CONFIG, *OPTIONS))),
        "## Flags of the commands",
        "`run`, `connect`, `check`, `doctor`, `ping`, `migrate` and `explain` take the settings above too.",
        _table(("command", "flags", ""), _flags()),
        "## Exit codes",
        _table(
            ("code", "name", ""),
            ((str(int(code)), f"`{code.name.lower()}`", EXITS[code]) for code in ExitCode),
        ),
        "## Metrics",
        "Counters of reasons are there from zero; a histogram has `_bucket`, `_sum` and `_count`.",
        _table(("metric", "kind", ""), ((f"`{one.name}`", one.kind, one.says) for one in metrics())),
        "## Events of the log",
        _table(("event", "level", ""), ((f"`{one.name}`", one.levels, one.says) for one in events())),
        "## Reasons",
        "The name is the label of the metric, the word in the log and the word in `/status`.",
        _table(("reason", ""), ((f"`{name}`", says) for name, says in reasons().items())),
        "## Fields of `/status`",
        f"The form has the version {SCHEMA} (`schema`). `sidecar status -json` prints it.",
        _table(("field", ""), ((f"`{name}`", says) for name, says in STATUS.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(option: Option) -> tuple[str, str, str, str]:
    default = option.default
    shown = (
        ""
        if default is None
        else ", ".join(map(str, default))
        if isinstance(default, tuple)
        else str(default)
    )
    return f"`{option.name}`", f"`{option.variable}`", shown, option.says


def _flags() -> Iterator[tuple[str, str, str]]:
    settings = {option.name for option in (CONFIG, *OPTIONS)}
    for name, usage in usages().items():
        own = [option for option in usage.options if option.name not in settings or usage.options == [option]]
        flags = ", ".join(f"`-{option.flag_name}`" for option in own)
        yield f"`{name} {usage.form}`".replace(" `", "`"), flags, usage.says


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | map[tuple[str, ...]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)


if __name__ == "__main__":
    PAGE.write_text(page())
