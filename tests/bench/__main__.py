"""`make bench`: the data plane against its peers, in the same run, on the same leaves.

Interleaved rounds, the order reversed each time; medians with their ranges, and ratios to Envoy. Single
figures of one machine mean little; the ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.load import Figures, Size, footprint, measure, warm_up
from tests.bench.pairs import PAIRS, SERVER, Pair
from tests.bench.rig import BenchFailed, datacenters, identity, origin
from tests.bench.table import facts, table
from tests.bench.tls import agreed

QUICK = Size(seconds=2, mebibytes=256, standing=200)


def main() -> int:
    """Bring everything up, measure, print the table. Exit 1 if no meaningful figure can be had."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, against Envoy alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of each load")
    parser.add_argument("--pairs", help="which contestants, with commas: " + ", ".join(PAIRS))
    args = parser.parse_args()
    names = (args.pairs or ("sidecar,envoy" if args.quick else ",".join(PAIRS))).split(",")
    size = QUICK if args.quick else Size(seconds=args.seconds, mebibytes=512, standing=1000)
    _raise_file_limit()
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as directory:
            print(run(Path(directory), names, 1 if args.quick else args.rounds, size))
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    return 0


def run(directory: Path, names: Sequence[str], rounds: int, size: Size) -> str:
    """Every round of every pair, as Markdown."""
    figures: dict[str, list[Figures]] = {name: [] for name in names}
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
    return "\n".join([*lines, "", *table(figures)])


def _tls(pairs: Sequence[Pair], directory: Path) -> list[str]:
    web = identity("web", directory)
    asked = [(pair, pair.public) for pair in pairs if pair.public is not None]
    return [
        f"- {pair.name}: {agreed(SERVER, public, web)}; READY after {pair.ready_seconds:.1f} s"
        for pair, public in asked
    ]


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
