"""Judges a page as it is shown: exceptions, requests to elsewhere, what runs over the side, and axe.

axe judges where `make pictures` has brought it; all else needs Chromium alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.pictures.browser import Page

# `make pictures` brings it: the wheel's other files, and what they ask for, are not wanted.
AXE = Path(__file__).parents[2] / "build" / "axe" / "axe_playwright_python" / "axe.min.js"
SCHEMES, WIDTHS = ("light", "dark"), (400, 1600)
_TWICE = "(async () => { await look(); await new Promise(over => setTimeout(over, 1000)); await look(); })()"
_RUN = "axe.run(document, {resultTypes: ['violations']})"
_NAMED = (
    "r => r.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.target + ': ' + n.failureSummary)])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a page is shown."""

    scheme: str
    width: int

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}"


def looks() -> Iterator[Look]:
    """Yield each of them."""
    for scheme in SCHEMES:
        for width in WIDTHS:
            yield Look(scheme=scheme, width=width)


def wrong_with(tab: Page, url: str, look: Look) -> list[str]:
    """Show a page, have it ask twice so that it has rates, and return all that is wrong with it."""
    tab.show(url, look.scheme, look.width)
    tab.until("!document.getElementById('headline').textContent.startsWith('asking')")
    tab.evaluate(_TWICE)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    found = [f"{wide} pixels wide"] if wide > look.width else []
    here = urlsplit(url).netloc
    found += [f"asks {asked}" for asked in tab.asked if urlsplit(asked).netloc not in ("", here)]
    found += tab.wrong
    return [*found, *violations(tab)] if AXE.exists() else found


def violations(tab: Page) -> list[str]:
    """Return what axe says of the page that is shown."""
    tab.evaluate(AXE.read_text() + ";0")
    return [json.dumps(violation) for violation in tab.evaluate(f"{_RUN}.then({_NAMED})")]
