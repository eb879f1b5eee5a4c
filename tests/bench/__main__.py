"""`make bench`: the data plane against its peers, in the same run, on the same leaves.

Interleaved rounds, the order reversed each time; medians with their ranges, and ratios to Envoy. Single
figures of one machine mean little; the ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.load import POINTS, measure
from tests.bench.pairs import PAIRS, Pair, versions
from tests.bench.rig import BenchFailed, datacenters, origin

Rounds = Mapping[str, Sequence[Mapping[str, float]]]


def main() -> int:
    """Bring everything up, measure, print the table. Exit 1 if no meaningful figure can be had."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of each load")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="which contestants, with commas")
    args = parser.parse_args()
    rounds, seconds = (1, 2) if args.quick else (args.rounds, args.seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
            figures = run(Path(name), args.pairs.split(","), rounds, seconds)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    return 0


def run(directory: Path, names: Sequence[str], rounds: int, seconds: int) -> Rounds:
    """Every round of every pair that can be started."""
    figures: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(datacenters(directory))
        stack.enter_context(origin(directory))
        pairs: list[Pair] = [stack.enter_context(PAIRS[name](directory)) for name in names]
        for number in range(rounds):
            for pair in pairs if number % 2 == 0 else reversed(pairs):
                figures[pair.name].append(measure(pair, seconds))
                print(f"round {number + 1}/{rounds} {pair.name}", file=sys.stderr, flush=True)
    return figures


def table(figures: Rounds) -> str:
    """Medians, ranges, and ratios to Envoy, as Markdown."""
    lines = [
        facts(),
        "",
        "| point | " + " | ".join(figures) + " | sidecar / envoy |",
        "|---" * (len(figures) + 2) + "|",
    ]
    for point in POINTS:
        cells = {name: [one[point.name] for one in rounds] for name, rounds in figures.items()}
        median = {name: statistics.median(values) for name, values in cells.items()}
        ratio = "–"
        if median.get("envoy") and median.get("sidecar"):
            ratio = f"{median['sidecar'] / median['envoy']:.2f}×"
        row = [f"{median[n]:,.0f} ({min(cells[n]):,.0f}–{max(cells[n]):,.0f})" for n in figures]
        lines.append(
            f"| {point.name}, {point.unit} ({point.better} is better) | " + " | ".join(row) + f" | {ratio} |"
        )
    return "\n".join(lines)


def facts() -> str:
    """What was measured on."""
    said = "; ".join(f"{name}: {text}" for name, text in versions().items())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    return f"{machine}, Python {platform.python_version()}; {said}"


if __name__ == "__main__":
    sys.exit(main())
