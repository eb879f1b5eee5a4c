"""Draws what the demo prints as an SVG for the README: `make picture` runs the demo and draws it.

Text stays text: it can be selected and searched, and `test_drawn.py` reads it back.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "pages" / "demo.svg"
ACROSS, DOWN, AROUND = 8.4, 18, 16  # of a letter, of a line, of the margin, in units of the picture
_STEP, _DETAIL = re.compile(r"\d/\d  "), re.compile(r" {5}\S")
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {tall:g}" role="img">
<title>What make demo prints</title>
<rect width="100%" height="100%" rx="8" fill="#11161d"/>
<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14" fill="#e6ebf2">
"""


def drawn(printed: str) -> str:
    """Return the picture of a text."""
    lines = printed.rstrip().splitlines()
    wide = 2 * AROUND + ACROSS * max(map(len, lines))
    head = _HEAD.format(wide=wide, tall=2 * AROUND + DOWN * len(lines))
    return head + "".join(_line(number, line) for number, line in enumerate(lines)) + "</g>\n</svg>\n"


def _line(number: int, line: str) -> str:
    if not line.strip():
        return ""
    colour = ' fill="#7fd8a2"' if _STEP.match(line) else ' fill="#a3b0c0"' if _DETAIL.match(line) else ""
    text, wide = escape(line.rstrip(), quote=False), ACROSS * len(line.rstrip())
    place = f'x="{AROUND}" y="{AROUND + DOWN * number + 13}"'
    return f'<text {place} textLength="{wide:g}" xml:space="preserve"{colour}>{text}</text>\n'


if __name__ == "__main__":
    story = sys.stdin.read().partition("\nThe mesh runs until Ctrl-C.")[0]
    PICTURE.write_text(drawn(story))
