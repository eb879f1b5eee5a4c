"""What more callers than can be served do to us, and how soon it is over.

Two thousand connections at once, each closed after one request and made anew: more handshakes than there are
places for, for as long as it lasts. Meanwhile memory is looked at; afterwards a caller a time, until one is
served as fast as before.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.bench.load import resident_mb
from tests.bench.pairs import Pair
from tests.bench.rig import BenchFailed, ask_text

CALLERS = 2000
CALM_SAMPLE = 50
CLOSE = 2.0  # as fast as before: within twice the calm median
PATIENCE = 30.0  # seconds
_LOOK = 0.1  # seconds between two looks at memory


ROWS = (
    "a new connection with its request before, median, ms",
    "served during it",
    "resident before, MB",
    "resident at most during it, MB",
    "after its end, until the first new caller was served, ms",
    "after its end, until one was served within twice the calm median, ms",
)


@dataclass(slots=True, kw_only=True)
class Peak:
    """The most that was seen, in MB."""

    resident_mb: float = 0.0


def overload(pairs: Sequence[Pair], seconds: int) -> list[str]:
    """Lines for the report: each pair in its turn."""
    columns, trouble = [], []
    for pair in pairs:
        figures, refused = _one(pair, seconds)
        columns.append(figures)
        trouble.append(f"{pair.name}: {refused}")
    told = (
        f"Overload: {CALLERS} callers at once for {seconds} s, each closing after one request and coming "
        f"back. What wrk says of those not served: {'; '.join(trouble)}."
    )
    return [
        "",
        told,
        "",
        "| | " + " | ".join(pair.name for pair in pairs) + " |",
        "|---" * (1 + len(pairs)) + "|",
        *(
            f"| {name} | " + " | ".join(f"{figure:,.4g}" for figure in row) + " |"
            for name, *row in zip(ROWS, *columns, strict=True)
        ),
    ]


def _one(pair: Pair, seconds: int) -> tuple[tuple[float, ...], str]:
    """A figure for each row, and what became of those not served."""
    calm = statistics.median(_fresh(pair) for _ in range(CALM_SAMPLE))
    before = resident_mb(pair)
    with _watching(pair) as peak:
        served, trouble = _burst(pair, seconds)
    first, recovered = _recovery(pair, calm)
    return (calm * 1e3, served, before, peak.resident_mb, first * 1e3, recovered * 1e3), trouble


def _fresh(pair: Pair) -> float:
    """Seconds for one request on a new connection."""
    started = time.perf_counter()
    ask_text(f"http://{pair.address}:{pair.port}/")
    return time.perf_counter() - started


def _burst(pair: Pair, seconds: int) -> tuple[int, str]:
    """How many requests were served, and what wrk says of the rest."""
    binary = shutil.which("wrk")
    if binary is None:
        raise BenchFailed("wrk makes the load: apt-get install wrk")
    url = f"http://{pair.address}:{pair.port}/"
    command = [binary, "-t1", f"-c{CALLERS}", f"-d{seconds}s", "-H", "Connection: close", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    served = re.search(r"(\d+) requests in", text)
    if served is None:
        raise BenchFailed(f"{pair.name}: cannot read wrk's answer:\n{text}")
    trouble = re.search(r"Socket errors: (.*)", text)
    return int(served[1]), trouble[1] if trouble else "no errors"


@contextmanager
def _watching(pair: Pair) -> Iterator[Peak]:
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK):
            peak.resident_mb = max(peak.resident_mb, resident_mb(pair))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _recovery(pair: Pair, calm: float) -> tuple[float, float]:
    """Seconds until the first caller is served, and until one is served as fast as before."""
    began, first = time.perf_counter(), 0.0
    while (now := time.perf_counter()) < began + PATIENCE:
        with suppress(OSError):  # refused, or reset: it is still full
            took = _fresh(pair)
            first = first or time.perf_counter() - began
            if took <= CLOSE * calm:
                return first, time.perf_counter() - began
        time.sleep(max(0.0, 0.005 - (time.perf_counter() - now)))
    raise BenchFailed(f"{pair.name}: not recovered within {PATIENCE:g} s")
