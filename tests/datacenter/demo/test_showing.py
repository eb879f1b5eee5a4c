"""What the demo prints fits a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from datacenter import demo
from datacenter.demo.mesh import Processes, commands, free_addresses
from datacenter.demo.showing import MESH, WIDTH, Told, seen_lines, step_line
from datacenter.demo.story import STEPS, Story, short
from tests.support.printed import as_printed, without_figures

DENIED = """\
refused 0.03 s after the write; 10 more, 0 reached the app
web@dc1 says denied_by_peer: web => db (deny, precedence 9)
db@dc2 says intention_deny: web => db (deny, precedence 9)"""
SEEN = [
    "one trust domain; dc2 signs with its own intermediate 0e:ca:f3:a6…",
    "leaves web@dc1 04, db@dc1 03, db@dc2 01",
    "web@dc1 → db@dc1, each proven to the other by its certificate",
    "db@dc2 at 127.0.77.121:31000 (wan_tag); its LAN address is closed",
    "dc1 → dc2 1.1 s after the app died, and back to dc1 once its check passed",
    DENIED,
    "0 failed of 13540 requests, 2 connections held; leaves 04 → 09, 03 → 08, 01 → 02",
]


def test_it_fits_the_width_and_the_height_of_a_terminal() -> None:
    lines = MESH.splitlines()
    for number, (title, seen) in enumerate(zip(STEPS, SEEN, strict=True), 1):
        told = Told(title=title, seen=seen, held=True, seconds=12.34)
        lines += [step_line(number, len(STEPS), told), *seen_lines(told).splitlines()]
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 24


def test_a_failed_step_says_so_in_its_place() -> None:
    told = Told(title="The root rotates", seen="not within 5 s: " + "x y " * 40, held=False, seconds=5)
    assert step_line(7, 7, told).split() == ["7/7", "The", "root", "rotates", "FAILED", "5.0", "s"]
    assert max(map(len, seen_lines(told).splitlines())) <= WIDTH


def test_an_identity_is_shown_short() -> None:
    assert short("spiffe://x.consul/ns/default/dc/dc1/svc/web") == "web@dc1"


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


async def taken(seen: str, _story: Story) -> str:
    await trio.lowlevel.checkpoint()
    return seen


@pytest.mark.parametrize(
    ("name", "out", "environ"),
    [
        ("pipe", io.StringIO, {"TERM": "xterm"}),
        ("terminal-80", Terminal, {"TERM": "xterm", "COLUMNS": "80"}),
        ("terminal-120", Terminal, {"TERM": "xterm", "COLUMNS": "120"}),
        ("no-color", Terminal, {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}),
    ],
)
async def test_it_prints_what_the_file_says(
    name: str,
    out: type[io.StringIO],
    environ: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = {title: partial(taken, seen) for title, seen in zip(STEPS, SEEN, strict=True)}
    monkeypatch.setattr(demo, "STEPS", steps)
    addresses, written = free_addresses(), out()
    processes = Processes(tmp_path, {}, commands(addresses, tmp_path))
    told = await demo.tell(demo.console_for(environ, written, plain=False), Story(addresses, processes))
    assert [one.held for one in told] == [True] * len(STEPS)
    assert without_figures(written.getvalue()) == as_printed(name)


async def test_a_check_prints_no_colour_even_to_a_terminal() -> None:
    written = Terminal()
    demo.console_for({"TERM": "xterm"}, written, plain=True).print("held", style="green")
    assert written.getvalue() == "held\n"
