"""The picture of the README is what the demo prints, line by line."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.drawn import DOWN, PICTURE, drawn
from tests.support.printed import as_printed, without_figures

_SVG = "{http://www.w3.org/2000/svg}"


def lines(picture: str) -> list[str]:
    """The lines of a picture, as they stand below each other."""
    texts = ET.fromstring(picture).iter(f"{_SVG}text")
    return [text.text or "" for text in sorted(texts, key=lambda text: float(text.attrib["y"]))]


def test_the_picture_is_what_the_demo_prints() -> None:
    printed = [line.rstrip() for line in as_printed("pipe").splitlines() if line.strip()]
    assert without_figures("\n".join(lines(PICTURE.read_text()))) == "\n".join(printed)


def test_a_line_keeps_its_blanks_its_marks_and_its_place() -> None:
    picture = drawn("1/7  a < b & c\n\n     detail\n")
    assert lines(picture) == ["1/7  a < b & c", "     detail"]
    first, second = (text.attrib for text in ET.fromstring(picture).iter(f"{_SVG}text"))
    assert float(second["y"]) - float(first["y"]) == 2 * DOWN
    assert first["fill"] != second["fill"]
