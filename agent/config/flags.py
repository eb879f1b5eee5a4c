"""Parses command-line words into flags as Consul does: `-name value`, `-name=value`, one dash or two.

This module does not know what a flag means. It collects every mistake and raises none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of a command. `switch`: it takes no value; `repeatable`: each use adds one."""

    name: str
    switch: bool = False
    repeatable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The parsed words: values by flag in order of use, other words, and mistakes."""

    values: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    mistakes: tuple[str, ...]
    help_wanted: bool = False


def parse_arguments(words: Sequence[str], flags: Collection[Flag]) -> Arguments:
    """Parse the words after the command. A lone `--` ends the flags; `-h` and `-help` ask for help."""
    known = {flag.name: flag for flag in flags}
    values: dict[str, list[str]] = {}
    others: list[str] = []
    mistakes: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            others += rest
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in ("h", "help"):
            return Arguments(values={}, words=(), mistakes=(), help_wanted=True)
        flag = known.get(name)
        if flag is None:
            mistakes.append(f"unknown flag -{name}{did_you_mean(name, known, '-')}")
            # The word after an unknown flag is most likely its value.
            if not equals and rest and not rest[0].startswith("-"):
                rest.pop(0)
            continue
        if not equals:
            taken = _take_value(flag, rest, known)
            if taken is None:
                mistakes.append(f"-{name} needs a value")
                continue
            value = taken
        values.setdefault(name, []).append(value)
    for name, given in values.items():
        if len(given) > 1 and not known[name].repeatable:
            mistakes.append(f"-{name} is given {len(given)} times; once is enough")
    return Arguments(
        values={name: tuple(given) for name, given in values.items()},
        words=tuple(others),
        mistakes=tuple(mistakes),
    )


def did_you_mean(name: str, known: Collection[str], prefix: str = "") -> str:
    """Return `; did you mean X?` for the closest known name, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - loaded only for a mistake

    spelled = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), list(spelled), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{spelled[close[0]]}?" if close else ""


def _take_value(flag: Flag, rest: list[str], known: Mapping[str, Flag]) -> str | None:
    """Take the value of a flag without `=` off `rest`; return None if there is none."""
    if flag.switch:
        return "true"
    if not rest:
        return None
    following = rest[0]
    if following.startswith("-") and following.lstrip("-").partition("=")[0] in known:
        return None
    return rest.pop(0)
