"""What a rotation in a fleet is told as: figures, and a picture of the same."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.bench.fleet import Seen, told
from tests.bench.fleet_plot import picture

SVG = "{http://www.w3.org/2000/svg}"


def seen() -> Seen:
    """Ten sidecars: five seconds of rest with a request each, then a leaf and two requests a second."""
    made = Seen(sidecars=10, ready=3.0, call=0.02, longest_pause=0.5)
    made.requests = [float(second) for second in range(-5, 0)]
    made.requests += [second + part for second in range(10) for part in (0.1, 0.6)]
    made.leaves = [float(second) for second in range(1, 11)]
    return made


def test_the_figures_are_those_of_rest_and_of_the_busiest_second() -> None:
    assert (seen().rest(), seen().peak()) == (1.0, 2)
    assert seen().spread() == [1.1, 5.5, 9.9, 10.0]
    lines = told(seen(), "embedded")
    assert lines[0] == "10 sidecars beside one agent (embedded)"
    assert "new leaf: a tenth after 1.1 s, half 5.5, nine tenths 9.9, all 10.0 s" in lines
    assert "requests: 1.0 a second at rest, 2 in the busiest second" in lines


def test_a_sidecar_without_a_new_leaf_is_told() -> None:
    short = seen()
    short.leaves.pop()
    short.failures = {"denied": 1}
    assert told(short, "consul")[1] == "FAILED: 9 of them have a new leaf; failures {'denied': 1}"


def test_the_picture_has_a_bar_for_each_second_and_a_point_for_each_leaf() -> None:
    root = ET.fromstring(picture(seen().per_second(), seen().leaves, "a & b"))
    bars = [each for each in root.iter(f"{SVG}rect") if each.get("class") == "bar"]
    (line,) = root.iter(f"{SVG}polyline")
    assert len(bars) == 15
    assert len((line.get("points") or "").split()) == 11
    assert float(bars[-1].get("height", 0)) == 2 * float(bars[0].get("height", 0))
    assert root.findtext(f"{SVG}title") == "a & b"


def test_a_picture_of_nothing_is_one() -> None:
    assert ET.fromstring(picture({}, [], "none")).tag == f"{SVG}svg"
