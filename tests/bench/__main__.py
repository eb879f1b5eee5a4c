"""`make bench`: the data plane against its peers, in the same run, on the same leaves.

Interleaved rounds, the order reversed each time; medians with their ranges, and ratios to Envoy. Single
figures of one machine mean little; the ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.contestants import PAIRS, present
from tests.bench.load import Figures, Size, footprint, measure, warm_up
from tests.bench.observed import observed
from tests.bench.overload import overload
from tests.bench.pairs import SERVER, Pair
from tests.bench.plot import picture
from tests.bench.rig import BenchFailed, datacenters, identity, origin, prepare
from tests.bench.storm import storm
from tests.bench.table import facts, table
from tests.bench.tls import agreed

QUICK = Size(seconds=2, mebibytes=256, standing=(200,))
IDLE = (1000, 5000)
STORM_INSTANCES, STORM_SECONDS = 5000, 10
OBSERVED_ROUNDS, OBSERVED_SECONDS = 9, 1
OVERLOADED, OVERLOAD_SECONDS = ("sidecar", "envoy", "haproxy"), 8
TITLE = "Distance from Envoy, medians of one run"

Rounds = dict[str, list[Figures]]


def main() -> int:
    """Bring everything up, measure, print the table. Exit 1 if no meaningful figure can be had."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, against Envoy alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    parser.add_argument("--pairs", help="which contestants, with commas: " + ", ".join(PAIRS))
    parser.add_argument(
        "--no-storm",
        action="store_true",
        help="leave out the control-plane storm, the overload, and what being seen costs",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write results.md and results.svg there")
    args = parser.parse_args()
    names = (args.pairs or ("sidecar,envoy" if args.quick else ",".join(present()))).split(",")
    if unknown := set(names) - set(PAIRS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PAIRS)}")
    size = QUICK if args.quick else Size(seconds=args.seconds, mebibytes=384, standing=IDLE)
    prepare()
    started = time.perf_counter()
    stormy = "sidecar" in names and not (args.quick or args.no_storm)
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as directory:
            rounds = 1 if args.quick else args.rounds
            lines, figures = run(Path(directory), names, rounds, size, stormy=stormy)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    lines.append(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    text = "\n".join(lines)
    print(text)
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        page = f"# Results of `make bench`\n\n![{TITLE}](results.svg)\n\n{text}\n"
        (args.output / "results.md").write_text(page)
        (args.output / "results.svg").write_text(picture(figures, TITLE))
    return 0


def run(
    directory: Path, names: Sequence[str], rounds: int, size: Size, *, stormy: bool
) -> tuple[list[str], Rounds]:
    """Every round of every pair: Markdown, and the figures."""
    figures: Rounds = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(datacenters(directory))
        stack.enter_context(origin(directory))
        pairs = [stack.enter_context(PAIRS[name](directory)) for name in names]
        lines = facts(rounds, size) + _tls(pairs, directory)
        for pair in pairs:
            figures[pair.name].append(warm_up(pair))
        for number in range(rounds):
            for pair in pairs if number % 2 == 0 else reversed(pairs):
                figures[pair.name].append(measure(pair, size))
                print(f"round {number + 1}/{rounds} {pair.name}", file=sys.stderr, flush=True)
        for pair in pairs:
            figures[pair.name].append(footprint(pair, size))
            print(f"footprint {pair.name}", file=sys.stderr, flush=True)
        told = table(figures)
        if stormy:
            (ours,) = (pair for pair in pairs if pair.name == "sidecar")
            told += ["", "What being seen costs:", ""]
            told += [*observed(directory, OBSERVED_ROUNDS, OBSERVED_SECONDS), ""]
            told += storm(ours, STORM_INSTANCES, STORM_SECONDS)
            told += overload([pair for pair in pairs if pair.name in OVERLOADED], OVERLOAD_SECONDS)
    return [*lines, "", *told], figures


def _tls(pairs: Sequence[Pair], directory: Path) -> list[str]:
    web = identity("web", directory)
    asked = [(pair, pair.public) for pair in pairs if pair.public is not None]
    return [f"- {pair.name}: {agreed(SERVER, public, web)}" for pair, public in asked]


if __name__ == "__main__":
    sys.exit(main())
