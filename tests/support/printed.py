"""What the demo prints (tests/datacenter/demo/printed): to a pipe, to two widths of terminal, with NO_COLOR.

Times, serials, addresses and counts are replaced, ESC is written as ␛, CR as ␍.
"""

from __future__ import annotations

import re
from pathlib import Path

_FILES = Path(__file__).parents[1] / "datacenter" / "demo" / "printed"
_FIGURES = {
    r"\r\x1b\[2K(?:\x1b\[32m)?[\u2800-\u28ff](?:\x1b\[0m)? [^\r\n]*": "",  # the line that moves, again
    r" +\d+\.\d s(?=\x1b|\n|$)": "    #.# s",
    r"\d+\.\d+ s(?= after)": "#.# s",
    r"(?:[0-9a-f]{2}:){3}[0-9a-f]{2}(?=…)": "##:##:##:##",
    r"127\.0\.\d+\.": "127.0.#.",
    r"failed of \d+ requests": "failed of # requests",
    r"(@dc\d) [0-9a-f]{2}\b": r"\1 ##",
    r"\b[0-9a-f]{2}\s+→\s+[0-9a-f]{2}\b": "## → ##",  # a long count has the line wrapped
    r",\s+##": ", ##",
}


def without_figures(text: str) -> str:
    """Return a text without what differs from run to run."""
    for pattern, instead in _FIGURES.items():
        text = re.sub(pattern, instead, text)
    return text.replace("\x1b", "␛").replace("\r", "␍")


def as_printed(name: str) -> str:
    """Return the file of this name."""
    return (_FILES / f"{name}.txt").read_text()
