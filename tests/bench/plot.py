"""The bench's answer as a picture: every contestant's distance from Envoy, figure by figure, as SVG.

To the right of the line is better, whatever the figure's own direction. The scale is logarithmic, so twice as
good and half as good are equally far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.load import Figure, Figures
from tests.bench.table import measured, medians

MEASURE = "envoy"
_LEFT, _WIDTH, _ROW, _TOP = 300, 560, 26, 64
_SPAN = 4.0  # the scale goes from a quarter to four times
_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0)
_COLOURS = ("#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#f08c00", "#0c8599", "#868e96", "#c2255c")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#212529}.muted{fill:#6c757d}.grid{stroke:#dee2e6}"
    ".one{stroke:#212529;stroke-width:1.5}.ground{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e9ecef}.muted{fill:#adb5bd}.grid{stroke:#343a40}"
    ".one{stroke:#e9ecef}.ground{fill:#161b22}}"
)


def picture(figures: Mapping[str, Sequence[Figures]], title: str) -> str:
    """An SVG document; rows without Envoy's figure are left out."""
    rows = [figure for figure in measured(figures) if MEASURE in medians(figure, figures)]
    names = [name for name in figures if name not in (MEASURE, "direct")]
    height = _TOP + _ROW * len(rows) + 40
    width = _LEFT + _WIDTH + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text x="16" y="24" font-weight="600">{escape(title)}</text>',
        *_legend(names),
        *_grid(_TOP + _ROW * len(rows)),
    ]
    for place, figure in enumerate(rows):
        parts += _row(figure, medians(figure, figures), names, _TOP + _ROW * place + _ROW // 2)
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 16
    for name, colour in zip(names, _COLOURS, strict=False):
        parts.append(f'<circle cx="{x + 5}" cy="44" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="48">{escape(name)}</text>')
        x += 34 + 8 * len(name)
    return parts


def _grid(bottom: int) -> list[str]:
    parts = []
    for tick in _TICKS:
        x, kind = _x(tick), "one" if tick == 1.0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        text = "Envoy" if tick == 1.0 else f"{tick:g}× as good"
        parts.append(f'<text class="muted" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
    return parts


def _row(figure: Figure, middle: Mapping[str, float], names: Sequence[str], y: int) -> list[str]:
    parts = [f'<text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(figure.name)}</text>']
    for name, colour in zip(names, _COLOURS, strict=False):
        if name in middle:
            ratio = middle[name] / middle[MEASURE]
            good = ratio if figure.better == "more" else 1 / ratio
            told = f"{name}: {middle[name]:,.0f} {figure.unit}, {ratio:.2f}× Envoy's"
            parts.append(
                f'<circle cx="{_x(good):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity="0.85">'
                f"<title>{escape(told)}</title></circle>"
            )
    return parts


def _x(good: float) -> float:
    place = math.log(max(1 / _SPAN, min(_SPAN, good))) / math.log(_SPAN)
    return _LEFT + _WIDTH / 2 * (1 + place)
