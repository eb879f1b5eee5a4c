"""The path from our app to the app of an upstream, station by station, and the first that is red in words.

    app → sidecar → Consul → address → TCP → TLS → identity → travel → intention → far app

Travel says whether connections are streams of a tunnel or a connection each, and why.

A station is reached through those before it, so the first red one is the cause, and what lies behind it is
not reached.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.base.exits import ExitCode

WIDTH = 80  # columns
_TEXT = 51  # columns of a station's text, beside its name and its time


class Name(StrEnum):
    """The stations, in order."""

    APP = "app"
    SIDECAR = "sidecar"
    CONSUL = "consul"
    ADDRESS = "address"
    TCP = "tcp"
    TLS = "tls"
    IDENTITY = "identity"
    TRAVEL = "travel"
    INTENTION = "intention"
    FAR_APP = "far app"


class Light(StrEnum):
    """The state of a station."""

    GREEN = "ok"
    AMBER = "warn"  # passed, and an operator should look
    RED = "fail"
    DARK = "-"  # not reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One station. `seconds`: the time it took, if that was measured. `code`: the exit code if it is red."""

    name: Name
    light: Light
    text: str
    seconds: float | None = None
    remedy: str = ""
    code: ExitCode = ExitCode.CLEAN


Paint = Callable[[str, Light], str]  # gives a text the colour of a light


def plain(text: str, _light: Light) -> str:
    """Return the text without a colour."""
    return text


def complete(stations: Sequence[Station]) -> tuple[Station, ...]:
    """Return all stations in order; those that are not given are not reached."""
    given = {station.name: station for station in stations}
    dark = {name: Station(name=name, light=Light.DARK, text="not reached") for name in Name}
    return tuple((dark | given)[name] for name in Name)


def first_red(stations: Sequence[Station]) -> Station | None:
    """Return the cause: the first red station."""
    return next((station for station in complete(stations) if station.light is Light.RED), None)


def exit_code(stations: Sequence[Station]) -> ExitCode:
    """Return the exit code by the class of the cause."""
    red = first_red(stations)
    return ExitCode.CLEAN if red is None else red.code


def picture(title: str, stations: Sequence[Station], paint: Paint = plain) -> str:
    """Return the path as lines of at most WIDTH columns, and the cause with its remedy."""
    lines = [title, ""]
    for station in complete(stations):
        lines += _rows(station, paint)
    red = first_red(stations)
    if red is not None:
        lines += ["", *_wrapped(paint(f"{red.name.value}:", Light.RED), red.text)]
        lines += _wrapped("  remedy:", red.remedy) if red.remedy else []
    return "\n".join(lines)


def row(station: Station) -> dict[str, object]:
    """Return the station as a JSON object."""
    light = "not_reached" if station.light is Light.DARK else station.light.value
    said: dict[str, object] = {"name": station.name.value, "state": light, "text": station.text}
    if station.seconds is not None:
        said["seconds"] = round(station.seconds, 6)
    return {**said, "remedy": station.remedy} if station.remedy else said


def _rows(station: Station, paint: Paint) -> Iterator[str]:
    first, *rest = textwrap.wrap(station.text, _TEXT, break_on_hyphens=False) or [""]
    took = "" if station.seconds is None else _milliseconds(station.seconds)
    light = paint(f"{station.light.value:4}", station.light)
    yield f"  {light}  {station.name.value:9}  {first:{_TEXT}}{took:>9}".rstrip()
    for line in rest:
        yield f"{'':19}{line}"


def _milliseconds(seconds: float) -> str:
    thousandths = seconds * 1000
    return f"{thousandths:.1f} ms" if thousandths < 100 else f"{thousandths:.0f} ms"


def _wrapped(head: str, text: str) -> list[str]:
    """Return a paragraph; the width of colours in `head` is not counted."""
    first, *rest = textwrap.wrap(text, WIDTH - 12, break_on_hyphens=False) or [""]
    return [f"{head} {first}", *(f"    {line}" for line in rest)]
