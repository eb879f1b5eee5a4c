"""`python -m tests.bench.growth`: what more upstreams, more endpoints and more intentions cost. Flat is good.

Each row starts a pair of sidecars anew beside the same two datacenters, so that memory is the row's alone.
Every endpoint of the growing service is the same server half under another name.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.load import requests_per_second, resident_mb
from tests.bench.pairs import CLIENT, L4, SERVER, Pair, sidecars
from tests.bench.rig import BenchFailed, api, ask, datacenters, origin, prepare

UPSTREAMS = (1, 10, 100, 1000)
ENDPOINTS = (1, 10, 100, 5000)
INTENTIONS = (1, 10, 100, 1000, 10_000)
_FIRST_PORT = 30_000
_SETTLING = 2.0  # seconds for a pair to have heard of everything

Start = Callable[[Path, int], contextlib.AbstractContextManager[Pair]]


def main() -> int:
    """Measure and print the three tables; exit 1 if a figure cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="loads of each kind, of which the median counts"
    )
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables there too")
    args = parser.parse_args()
    prepare()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sidecar-growth-") as directory,
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(datacenters(Path(directory)))
            stack.enter_context(origin(Path(directory)))
            lines = []
            for what, counts, start in (
                ("upstreams", UPSTREAMS, with_upstreams),
                ("endpoints", ENDPOINTS, with_endpoints),
                ("intentions", INTENTIONS, with_intentions),
            ):
                lines += _table(Path(directory), what, counts, start, (args.rounds, args.seconds))
    except BenchFailed as error:
        print(f"growth: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    if args.output is not None:
        args.output.write_text("\n".join(["# Cost as work grows", "", *lines, ""]))
    return 0


def _table(
    directory: Path, what: str, counts: Sequence[int], start: Start, load: tuple[int, int]
) -> list[str]:
    rounds, seconds = load
    lines = [
        f"| {what} | requests/s, 32 connections | new connections/s | resident, larger half, MB |",
        "|---|---|---|---|",
    ]
    for count in counts:
        with start(directory, count) as pair:
            time.sleep(_SETTLING)
            resident = resident_mb(pair)
            requests, fresh = [], []
            for _ in range(rounds):
                requests.append(requests_per_second(pair, 32, seconds))
                fresh.append(requests_per_second(pair, 16, seconds, fresh=True))
        lines.append(f"| {count:,} | {_told(requests)} | {_told(fresh)} | {resident:,.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, ""]


def _told(figures: list[float]) -> str:
    figures.sort()
    return f"{figures[len(figures) // 2]:,.0f} ({figures[0]:,.0f}–{figures[-1]:,.0f})"


@contextlib.contextmanager
def with_upstreams(directory: Path, count: int) -> Iterator[Pair]:
    """A client half with so many upstreams; the first is called."""
    specs = [f"{L4.service}@dc2:{CLIENT}:{_FIRST_PORT + number}" for number in range(1, count)]
    more = [word for spec in specs for word in ("-upstream", spec)]
    with sidecars(directory, L4, *more) as pair:
        yield pair


@contextlib.contextmanager
def with_endpoints(directory: Path, count: int) -> Iterator[Pair]:
    """An upstream of so many instances."""
    grown = replace(L4, service=f"db-{count}")
    rule = f"{api('dc1')}/v1/connect/intentions/exact?source=web&destination={grown.service}"
    ask("PUT", rule, {"Action": "allow"})
    for number in range(1, count):
        ask("PUT", f"{api('dc2')}/v1/catalog/register", _instance(grown.service, number))
    with sidecars(directory, grown) as pair:
        yield pair


def _instance(service: str, number: int) -> dict[str, object]:
    node = f"{service}-{number}"
    proxy = {
        "Kind": "connect-proxy", "ID": f"{node}-proxy", "Service": f"{service}-sidecar-proxy",
        "Address": SERVER, "Port": L4.public, "Proxy": {"DestinationServiceName": service},
    }  # fmt: skip
    return {"Node": node, "Address": SERVER, "Service": proxy}


@contextlib.contextmanager
def with_intentions(directory: Path, count: int) -> Iterator[Pair]:
    """A server half with so many intentions, that for its caller among them."""
    grown = replace(L4, service=f"db-i{count}")
    sources = ("web", *(f"source-{number}" for number in range(1, count)))
    rules = [{"Name": source, "Action": "allow"} for source in sources]
    entry = {"Kind": "service-intentions", "Name": grown.service, "Sources": rules}
    ask("PUT", f"{api('dc1')}/v1/config", entry, seconds=60)
    with sidecars(directory, grown) as pair:
        yield pair


if __name__ == "__main__":
    sys.exit(main())
