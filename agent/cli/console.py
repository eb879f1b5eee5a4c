"""What the commands print: usage, settings, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from agent.config.options import CONFIG, CONSUL, OURS, POLICY, WHO, Option
from agent.config.settings import Mistake, Origin
from agent.overview.stations import Light, Paint, plain

_USAGE = """\
usage: sidecar COMMAND [FLAGS]        one dash or two; -flag value or -flag=value

{commands}

`sidecar COMMAND -h` shows three examples, `sidecar help COMMAND` lists its flags.
"""

RUN_GROUPS = {
    "which service to run beside": WHO,
    "Consul": CONSUL,
    "the agent itself": (CONFIG, *OURS),
    "policy": POLICY,
}
_COLOURS = {Light.GREEN: "32", Light.AMBER: "33", Light.RED: "1;31", Light.DARK: "2"}  # SGR, ECMA-48 §8.3.117


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """A command's words and environment, and its two output streams.

    `notes` are for the log of an agent; so are `mistakes`, which keep it from running.
    """

    words: tuple[str, ...]
    environ: Mapping[str, str]
    out: TextIO
    err: TextIO
    notes: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        """Print a line of the result."""
        self.out.write(text + "\n")

    def complain(self, text: str) -> None:
        """Print a line about an error."""
        self.err.write(f"sidecar: {text}\n")

    def complain_of(self, mistakes: Sequence[Mistake]) -> None:
        """Print every mistake; one alone needs no heading."""
        if len(mistakes) == 1:
            self.complain(str(mistakes[0]))
            return
        self.complain(f"{len(mistakes)} settings are wrong")
        for mistake in mistakes:
            self.err.write(f"  {mistake}\n")


def colourful(console: Console) -> bool:
    """Return whether to write colours: to a terminal, unless NO_COLOR is set or the terminal is dumb."""
    return (
        console.out.isatty() and not console.environ.get("NO_COLOR") and console.environ.get("TERM") != "dumb"
    )


def lights(console: Console) -> Paint:
    """Return what paints a text in the colour of its light, or leaves it as it is."""
    if not colourful(console):
        return plain
    return lambda text, light: f"\x1b[{_COLOURS[light]}m{text}\x1b[0m"


def usage(commands: Mapping[str, str]) -> str:
    """Return the list of commands, one line each."""
    return _USAGE.format(commands="\n".join(f"  {name:11} {says}" for name, says in commands.items()))


def examples() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return, for each command, lines to type, and what each of them does."""
    text = Path(__file__).with_name("examples.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, list[tuple[str, str]]])


def short_help(command: str, says: str) -> str:
    """Return the short help of a command: what it does, and its examples."""
    lines = [f"sidecar {command}: {says}", ""]
    for example, meaning in examples()[command]:
        lines += [f"  {example}", f"        {meaning}"]
    return "\n".join([*lines, "", f"`sidecar {command} -help` says all, each flag included."])


def flag_usage(command: str, says: str, groups: Mapping[str, Sequence[Option]], form: str = "") -> str:
    """Return the help of one command with its flags."""
    lines = [f"usage: sidecar {command} [FLAGS] {form}".rstrip(), "", f"  {says}"]
    for title, options in groups.items():
        lines += ["", f"{title}:"]
        for option in options:
            lines += [f"  -{option.flag_name} {option.example}".rstrip(), f"        {option.says}"]
            if not option.flag_only:
                lines.append(f"        {option.variable}{default_text(option)}")
    return "\n".join(lines)


def run_usage(command: str, says: str, form: str = "") -> str:
    """Return the help of a command that takes the flags of `run`."""
    return flag_usage(command, says, RUN_GROUPS, form)


def effective_text(rows: Sequence[tuple[str, str, Origin]]) -> str:
    """Return the settings in force and their origins, in columns."""
    width = max((len(f"{name} = {value}") for name, value, _ in rows), default=0)
    return "\n".join(f"{f'{name} = {value}':{min(width, 60)}}  # {origin}" for name, value, origin in rows)


def default_text(option: Option) -> str:
    """Return `, default VALUE`, or nothing where there is none to say."""
    if option.default is None or option.switch:
        return ""
    shown = option.default[0] if isinstance(option.default, tuple) else option.default
    return f", default {shown}"
