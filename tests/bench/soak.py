"""`python -m tests.bench.soak`: thousands of mixed connections for a quarter of an hour leave nothing behind.

Idle ones, conversations, downloads, uploads, half-closes, resets, slow readers and strangers, all at once
through two sidecars. Every few seconds descriptors, threads, tasks, connections and resident memory of both
halves are noted. Afterwards everything but a margin of memory must be as before. Connections to Consul may
be more, since a sidecar takes more while the host has few: as many as `/status` says that it may have now.

Memory is judged twice. A first flood of a minute, of the same connections, leaves what a first flood leaves:
tables that have grown, pages with something that lives on. A leak is what comes on top in the quarter of an
hour after it, and hardly any of that is let pass.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from agent.outbound.tunnels import IDLE_SECONDS
from agent.tunnel.tunnel import LOOK_SECONDS
from tests.bench.descriptors import connections_to
from tests.bench.habits import Unlike, converse, download_slowly, half_close, hang_up, idle, stranger, upload
from tests.bench.pairs import CLIENT, L4, SERVER, Pair, sidecars
from tests.bench.rig import API_PORT, BenchFailed, ask_text, datacenters, origin, prepare, resident_kib
from upstreams.answers import TUNNEL_KEY

KINDS: dict[str, tuple[Callable[[Pair, random.Random], None], float]] = {
    "idle": (idle, 0.3),
    "conversation": (converse, 0.3),
    "slow download": (download_slowly, 0.1),
    "upload": (upload, 0.1),
    "half-close": (half_close, 0.1),
    "reset": (hang_up, 0.05),
    "stranger": (stranger, 0.05),
}
TUNNELLED = replace(L4, config={TUNNEL_KEY: True}, flags=("-tunnel", "auto"))
TUNNELS_END = IDLE_SECONDS + 2 * LOOK_SECONDS  # seconds, after their last stream
HALVES = ("client", "server")
SAMPLE_SECONDS = 5.0
RAMP_SECONDS = 20.0  # in which the callers arrive
FIRST_FLOOD = 60.0  # seconds
MARGIN_MB = 15.0  # above the start, when all is over: what a first flood leaves
GROWTH_MB = 3.0  # above what the first flood left; and, while it lasts, from the third to the last quarter
COUNTING = 1  # thread, for connections of the host (agent/consul/room.py); trio keeps it for ten seconds
SETTLING = 10.0  # seconds, which are the promise: what is not ended and given back by then is left behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at one half."""

    at: float
    descriptors: int  # but for the connections to Consul
    to_consul: int
    may_to_consul: int  # how many connections to Consul it may have
    threads: int
    tasks: int
    live: int
    resident_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All looks at one half."""

    before: Sample
    flooded: Sample
    during: Sequence[Sample]
    after: Sample


def main() -> int:
    """Run; print what was seen; exit 1 for anything left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--first-flood", type=float, default=FIRST_FLOOD, metavar="SECONDS")
    parser.add_argument("--tunnels", action="store_true", help="all connections in tunnels")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there too")
    args = parser.parse_args()
    prepare()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sidecar-soak-") as directory,
            datacenters(Path(directory)),
            origin(Path(directory)),
            sidecars(Path(directory), TUNNELLED if args.tunnels else L4) as pair,
        ):
            settling = SETTLING + args.tunnels * TUNNELS_END
            lines, faults = soak(pair, args.connections, args.minutes * 60, args.first_flood, settling)
    except BenchFailed as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    lines += [f"- left behind: {fault}" for fault in faults] or ["- nothing was left behind"]
    print("\n".join(lines))
    if args.output is not None:
        args.output.write_text("\n".join(["# Soak", "", *lines, ""]))
    return 1 if faults else 0


def soak(
    pair: Pair, connections: int, seconds: float, first_flood: float, settling: float
) -> tuple[list[str], list[str]]:
    """The report, and what is wrong."""
    before = look_at_both(pair)
    first, _, flooded = flood(pair, connections, first_flood, settling)
    crowd, samples, after = flood(pair, connections, seconds, settling)
    lines = [
        f"- {connections} connections at a time for {seconds / 60:g} minutes: {crowd.told()}",
        f"- a first flood of {first_flood:g} s before it: {first.told()}",
        "",
        "| half | | descriptors | to Consul | threads | tasks | live connections | resident, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    faults = [*first.faults(), *crowd.faults()]
    for half in HALVES:
        during = [sample[half] for sample in samples]
        seen = Seen(before=before[half], flooded=flooded[half], during=during, after=after[half])
        lines += rows(half, seen)
        faults += left_behind(half, seen)
    for half in HALVES:
        lines += ["", f"How connections of the {half} half ended: {endings(half)}."]
    return [*lines, ""], faults


def flood(
    pair: Pair, connections: int, seconds: float, settling: float
) -> tuple[Crowd, list[dict[str, Sample]], dict[str, Sample]]:
    """A crowd for so long: what it did, looks while it lasted, and one when all has settled."""
    samples = []
    with Crowd(pair, connections) as crowd:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(min(SAMPLE_SECONDS, seconds / 12))
            samples.append(look_at_both(pair))
    time.sleep(settling)
    return crowd, samples, look_at_both(pair)


def rows(half: str, seen: Seen) -> list[str]:
    """What was seen of a half, as rows of the report's table."""
    busiest = max(seen.during, key=lambda sample: sample.live)
    looks = (
        ("before", seen.before),
        ("after the first flood", seen.flooded),
        ("busiest", busiest),
        ("after", seen.after),
    )
    return [
        f"| {half} | {name} | {one.descriptors} | {one.to_consul} of {one.may_to_consul} | {one.threads} "
        f"| {one.tasks} | {one.live} | {one.resident_mb:.1f} |"
        for name, one in looks
    ]


def endings(half: str) -> str:
    """By reason, the most frequent first."""
    rows = re.findall(
        r'^sidecar_connections_total{.*reason="(\w+)".*} (\S+)$', _asked(half, "metrics"), re.MULTILINE
    )
    told = sorted(((float(count), reason) for reason, count in rows if float(count)), reverse=True)
    return ", ".join(f"{reason} {count:,.0f}" for count, reason in told)


def look_at_both(pair: Pair) -> dict[str, Sample]:
    """How each half stands now."""
    return {half: look(half, pid) for half, pid in zip(HALVES, pair.pids, strict=True)}


def look(half: str, pid: int) -> Sample:
    """How a half stands now."""
    to_consul = connections_to(pid, API_PORT)
    descriptors = _count(pid, "fd") - to_consul  # before it is asked, for that takes one
    metrics, status = _asked(half, "metrics"), json.loads(_asked(half, "status"))
    return Sample(
        at=time.monotonic(),
        descriptors=descriptors,
        to_consul=to_consul,
        may_to_consul=status["consul"]["connections"],
        threads=_count(pid, "task"),
        tasks=_sum(metrics, "sidecar_tasks"),
        live=_sum(metrics, "sidecar_connections_live"),
        resident_mb=resident_kib(pid) * 1024 / 1e6,
    )


def _asked(half: str, page: str) -> str:
    address = CLIENT if half == "client" else SERVER
    return ask_text(f"http://{address}:{L4.admin}/{page}")


def _sum(metrics: str, name: str) -> int:
    rows = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return round(sum(map(float, rows)))


def _count(pid: int, what: str) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/{what}").iterdir())


def left_behind(half: str, seen: Seen) -> list[str]:
    """What is there after the soak that was not there before, named."""
    before, after = seen.before, seen.after
    faults = []
    if after.live:
        faults.append(f"{half}: {after.live} connections")
    if after.descriptors > before.descriptors:
        faults.append(f"{half}: {after.descriptors - before.descriptors} descriptors")
    if after.to_consul > after.may_to_consul:
        faults.append(f"{half}: {after.to_consul} connections to Consul, of {after.may_to_consul}")
    if after.threads > before.threads + COUNTING:
        faults.append(f"{half}: {after.threads - before.threads} threads")
    if after.tasks > before.tasks:
        faults.append(f"{half}: {after.tasks - before.tasks} tasks")
    return [*faults, *memory_left(half, seen)]


def memory_left(half: str, seen: Seen) -> list[str]:
    """Where memory is more than a first flood explains."""
    faults = []
    if seen.after.resident_mb > seen.before.resident_mb + MARGIN_MB:
        faults.append(f"{half}: {seen.after.resident_mb - seen.before.resident_mb:.1f} MB above the start")
    if seen.after.resident_mb > seen.flooded.resident_mb + GROWTH_MB:
        more = seen.after.resident_mb - seen.flooded.resident_mb
        faults.append(f"{half}: {more:.1f} MB more than the first flood left")
    quarter = len(seen.during) // 4
    third, last = seen.during[2 * quarter : 3 * quarter], seen.during[3 * quarter :]
    grown = statistics.median(s.resident_mb for s in last) - statistics.median(s.resident_mb for s in third)
    if grown > GROWTH_MB:
        faults.append(f"{half}: it grew by {grown:.1f} MB from the third to the last quarter")
    return faults


class Crowd:
    """So many callers, each with a thread of its own, one connection after the other until told to stop."""

    def __init__(self, pair: Pair, size: int) -> None:
        self._pair = pair
        self._over = threading.Event()
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        threading.stack_size(256 * 1024)
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(size)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def told(self) -> str:
        """How many of each kind there were."""
        return ", ".join(f"{count:,} × {kind}" for kind, count in sorted(self._done.items()))

    def faults(self) -> Sequence[str]:
        """What went wrong, with how often."""
        return [f"{count} × {what}" for what, count in self._failed.items()]

    def _live(self, number: int) -> None:
        rng = random.Random(number)
        kinds = list(KINDS)
        weights = [KINDS[kind][1] for kind in kinds]
        pause = rng.uniform(0, RAMP_SECONDS)
        while not self._over.wait(pause):
            pause = rng.random()
            (kind,) = rng.choices(kinds, weights)
            try:
                KINDS[kind][0](self._pair, rng)
                self._done[kind] += 1
            except (OSError, Unlike) as error:
                self._failed[f"{kind}: {error}"] += 1


if __name__ == "__main__":
    sys.exit(main())
