"""The bench's answer as Markdown: what was measured on, and every figure with its range and ratio."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence

from tests.bench.contestants import versions
from tests.bench.load import FIGURES, Figure, Figures, Size

# Ours, and which Envoy each is held against.
_RATIOS = (("sidecar", "envoy"), ("sidecar-l7", "envoy-rbac"), ("sidecar-l7-tunnel", "envoy-rbac"))


def facts(rounds: int, size: Size) -> list[str]:
    """The machine, the contestants and the sizes."""
    return [
        (
            f"- {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, "
            f"load {os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}"
        ),
        *(f"- {name}: {said}" for name, said in versions().items()),
        (
            f"- {rounds} rounds in turn, the order reversed each time; {size.seconds} s of each load, "
            f"{size.mebibytes} MiB of bulk; resumption off everywhere"
        ),
    ]


def table(figures: Mapping[str, Sequence[Figures]]) -> list[str]:
    """One row a figure: median and range of each contestant, and ours as a ratio to Envoy's."""
    ratios = [pair for pair in _RATIOS if set(pair) <= set(figures)]
    return [
        "| | " + " | ".join([*figures, *map(" / ".join, ratios)]) + " |",
        "|---" * (1 + len(figures) + len(ratios)) + "|",
        *(_row(figure, figures, ratios) for figure in measured(figures)),
    ]


def measured(figures: Mapping[str, Sequence[Figures]]) -> list[Figure]:
    """The rows for which anybody has a figure."""
    names = {name for rounds in figures.values() for one in rounds for name in one}
    return [figure for figure in FIGURES if figure.name in names]


def medians(figure: Figure, figures: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """By contestant, for those that have the figure."""
    found = {
        name: [one[figure.name] for one in rounds if figure.name in one] for name, rounds in figures.items()
    }
    return {name: statistics.median(values) for name, values in found.items() if any(values)}


def _row(figure: Figure, figures: Mapping[str, Sequence[Figures]], ratios: Sequence[tuple[str, str]]) -> str:
    values = {
        name: [one[figure.name] for one in rounds if figure.name in one] for name, rounds in figures.items()
    }
    cells, middle = [_cell(of) for of in values.values()], medians(figure, figures)
    cells += [
        f"{middle[us] / middle[peer]:.2f}×" if {us, peer} <= set(middle) else "–" for us, peer in ratios
    ]
    return f"| {figure.name}, {figure.unit} ({figure.better} is better) | " + " | ".join(cells) + " |"


def _cell(values: Sequence[float]) -> str:
    if not any(values):
        return "–"
    low, median, high = min(values), statistics.median(values), max(values)
    return f"{median:,.0f}" if low == high else f"{median:,.0f} ({low:,.0f}–{high:,.0f})"
