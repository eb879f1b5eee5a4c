"""`python -m tests.bench.observed`: what being seen costs: all at default, against all of it off.

Three pairs of sidecars beside the same two datacenters, loaded in turn, the order reversed each round: one
that is dark (`tests/bench/dark.py`), one as it comes, scraped as by Prometheus, and one with
`connection_log` as well. CPU is that of both halves, by the scheduler's accounts, so that it means something
on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.accounts import accounts
from tests.bench.contestants import allow
from tests.bench.load import cost, resident_mb
from tests.bench.pairs import CLIENT, SERVER, Pair, Sidecars, sidecars
from tests.bench.rig import BenchFailed, ask_text, datacenters, origin, prepare

DARK = Sidecars(
    name="off", service="db-dark", public=21031, upstream=9131, admin=19031,
    module="tests.bench.dark", level="info",
)  # fmt: skip
SEEN = Sidecars(name="default", service="db-seen", public=21032, upstream=9132, admin=19032, level="info")
LOGGED = Sidecars(
    name="default, connection_log", service="db-logged", public=21033, upstream=9133, admin=19033,
    level="info", flags=("-connection-log",),
)  # fmt: skip
MOST_SLOWER, MOST_MB = 0.03, 2.0  # what being seen may cost
SCRAPE_SECONDS = 15.0  # as often as Prometheus asks for in most places


@dataclass(slots=True)
class Costs:
    """The figures of one pair, one of each kind a round."""

    requests: list[float] = field(default_factory=list)  # per second
    request_cpu: list[float] = field(default_factory=list)  # µs
    fresh: list[float] = field(default_factory=list)  # new connections per second
    fresh_cpu: list[float] = field(default_factory=list)  # µs
    resident: float = 0.0  # MB, after all rounds


def main() -> int:
    """Measure and print the table; exit 1 if a figure cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.observed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too")
    args = parser.parse_args()
    prepare()
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-observed-") as name, contextlib.ExitStack() as stack:
            directory = Path(name)
            stack.enter_context(datacenters(directory))
            stack.enter_context(origin(directory))
            lines = observed(directory, args.rounds, args.seconds)
    except BenchFailed as error:
        print(f"observed: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    if args.output is not None:
        args.output.write_text("\n".join(["# What being seen costs", "", *lines, ""]))
    return 0


def observed(directory: Path, rounds: int, seconds: int) -> list[str]:
    """Measure beside datacenters and an origin that are up: table, verdict, and the account of one call."""
    each = accounts(directory / "accounts.log")
    costs = measured(directory, (DARK, SEEN, LOGGED), rounds, seconds)
    account = f"{_told(each)} of CPU for one connection's account, in one half."
    return [*table(costs), "", verdict(costs[DARK.name], costs[SEEN.name]), "", account]


def measured(directory: Path, which: Sequence[Sidecars], rounds: int, seconds: int) -> dict[str, Costs]:
    """The figures of each pair."""
    costs = {one.name: Costs() for one in which}
    with contextlib.ExitStack() as stack:
        pairs = []
        for one in which:
            allow(one.service)
            pairs.append(stack.enter_context(sidecars(directory, one)))
            if one is not DARK:
                stack.enter_context(scraped(one))
        for number in range(rounds + 1):
            for pair in pairs if number % 2 == 0 else reversed(pairs):
                _load(pair, costs[pair.name] if number else Costs(), seconds)  # the first one warms up
                print(f"round {number}/{rounds} {pair.name}", file=sys.stderr, flush=True)
        time.sleep(3)  # for memory to be given back
        for pair in pairs:
            costs[pair.name].resident = resident_mb(pair)
    return costs


def _load(pair: Pair, costs: Costs, seconds: int) -> None:
    for rates, cpus, connections, fresh in (
        (costs.requests, costs.request_cpu, 32, False),
        (costs.fresh, costs.fresh_cpu, 16, True),
    ):
        rate, cpu = cost(pair, connections, seconds, fresh=fresh)
        rates.append(rate)
        cpus.append(cpu)


@contextlib.contextmanager
def scraped(which: Sidecars) -> Iterator[None]:
    """Read the metrics of both halves within the block, as Prometheus does."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            for half in (CLIENT, SERVER):
                ask_text(f"http://{half}:{which.admin}/metrics")

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def table(costs: dict[str, Costs]) -> list[str]:
    """The table in Markdown: medians, and the median distance from the first pair in the same round."""
    (base, *_) = costs.values()
    heads = ["", "requests/s, 32 connections", "CPU per request, µs", "new connections/s"]
    heads += ["CPU per new connection, µs", "resident, larger half, MB"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, one in costs.items():
        cells = [
            _cell(getattr(one, kind), getattr(base, kind))
            for kind in ("requests", "request_cpu", "fresh", "fresh_cpu")
        ]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {one.resident:.1f} ({one.resident - base.resident:+.1f}) |"
        )
    return lines


def _told(each: dict[str, float]) -> str:
    return "; ".join(f"{name}: {seconds:.1f} µs" for name, seconds in each.items())


def _cell(figures: Sequence[float], base: Sequence[float]) -> str:
    median = statistics.median(figures)
    shown = f"{median:,.0f}" if median >= 1000 else f"{median:.1f}"
    return f"{shown} ({distance(figures, base):+.1%})"


def distance(figures: Sequence[float], base: Sequence[float]) -> float:
    """The median of what each round's figure is away from the other one of that round, as a fraction.

    Rounds are interleaved, so that what slows the machine down slows both figures of a round.
    """
    return statistics.median(one / other - 1 for one, other in zip(figures, base, strict=True))


def verdict(off: Costs, on: Costs) -> str:
    """Whether being seen keeps its bounds: requests/s and MOST_MB of the larger half."""
    slower, heavier = -distance(on.requests, off.requests), on.resident - off.resident
    kept = slower <= MOST_SLOWER and heavier <= MOST_MB
    return (
        f"Everything at default against off: {-slower:+.1%} requests/s (at most -{MOST_SLOWER:.0%}) and "
        f"{heavier:+.1f} MB (at most +{MOST_MB:g}): {'within' if kept else '**not within**'} the bounds."
    )


if __name__ == "__main__":
    sys.exit(main())
