"""What the demo prints fits a terminal of 80 columns and 24 lines."""

from __future__ import annotations

from datacenter.demo.showing import MESH, WIDTH, Told, seen_lines, step_line
from datacenter.demo.story import STEPS, short

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
