"""What the demo prints: the mesh drawn once, and two lines for each step; it fits 80 columns and 24 lines."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

WIDTH = 80  # columns
MESH = """\
  dc1, primary: root CA, intentions   dc2, secondary: its own intermediate
  ┌─────┐ ┌─────────┐      mTLS       ┌─────────┐ ┌────┐
  │ web ├─┤ sidecar ╞═════════════════╡ sidecar ├─┤ db │
  └─────┘ └────╥────┘                 └─────────┘ └────┘
  ┌────┐  ┌────╨────┐  db answers from dc1; from dc2 while dc1 has none
  │ db ├──┤ sidecar │
  └────┘  └─────────┘"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One step, told: what was seen, whether it held, and how long it took."""

    title: str
    seen: str
    held: bool
    seconds: float


def step_line(number: int, of: int, told: Told) -> str:
    """Return the line of a step: its number, its title, whether it held, and its time."""
    mark = "held" if told.held else "FAILED"
    head = f"{number}/{of}  {told.title}"
    return f"{head:{WIDTH - 16}}{mark:>6}{f'{told.seconds:.1f} s':>9}"


def seen_lines(told: Told) -> str:
    """Return what was seen, below the line of its step."""
    rows = [row for line in told.seen.splitlines() for row in textwrap.wrap(line, WIDTH - 5)]
    return "\n".join(f"     {row}" for row in rows)
