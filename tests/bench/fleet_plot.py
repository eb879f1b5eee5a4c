"""A rotation in a fleet as a picture: requests by second, and how many sidecars have their new leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

Place = Callable[[float], float]  # of a second, on the picture

_LEFT, _TOP, _WIDTH, _HEIGHT, _GAP = 60, 56, 640, 150, 46
_ACROSS = _LEFT + _WIDTH + 40
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#212529}.muted{fill:#6c757d}.bar{fill:#1971c2}"
    ".line{fill:none;stroke:#d9480f;stroke-width:2}.axis{stroke:#868e96}.ground{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e9ecef}.muted{fill:#adb5bd}.ground{fill:#161b22}}"
)


def picture(per_second: Mapping[int, int], leaves: Sequence[float], title: str) -> str:
    """An SVG document; second 0 is the rotation."""
    first, last = min([0, *per_second]), max([1, *per_second, *map(int, leaves)]) + 1
    height = _TOP + 2 * _HEIGHT + _GAP + 40

    def x(second: float) -> float:
        return _LEFT + _WIDTH * (second - first) / (last - first)

    upper, lower = _TOP + _HEIGHT, _TOP + 2 * _HEIGHT + _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_ACROSS} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect class="ground" width="{_ACROSS}" height="{height}"/>',
            f'<text x="16" y="24" font-weight="600">{escape(title)}</text>',
            *_bars(per_second, x, upper),
            *_curve(leaves, x, lower),
            *(_axis(y) for y in (upper, lower)),
            *(_second(second, x(second), lower + 18) for second in range(first - first % -10, last, 10)),
            "</svg>",
            "",
        ]
    )


def _bars(per_second: Mapping[int, int], x: Place, bottom: float) -> list[str]:
    most = max(per_second.values(), default=1)
    parts = [f'<text class="muted" x="16" y="{_TOP - 8}">requests a second, {most:,} at most</text>']
    for second, count in sorted(per_second.items()):
        tall = _HEIGHT * count / most
        wide = x(second + 1) - x(second) - 1
        parts.append(
            f'<rect class="bar" x="{x(second):.1f}" y="{bottom - tall:.1f}" '
            f'width="{max(wide, 1):.1f}" height="{tall:.1f}"/>'
        )
    return parts


def _curve(leaves: Sequence[float], x: Place, bottom: float) -> list[str]:
    points = [
        f"{x(moment):.1f},{bottom - _HEIGHT * number / len(leaves):.1f}"
        for number, moment in enumerate(sorted(leaves), start=1)
    ]
    text = f"sidecars with their new leaf, {len(leaves):,} at last"
    return [
        f'<text class="muted" x="16" y="{bottom - _HEIGHT - 8}">{text}</text>',
        f'<polyline class="line" points="{x(0):.1f},{bottom:.1f} {" ".join(points)}"/>',
    ]


def _second(second: int, x: float, y: float) -> str:
    return f'<text class="muted" x="{x:.0f}" y="{y}" text-anchor="middle">{second} s</text>'


def _axis(y: float) -> str:
    return f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y}" y2="{y}"/>'
