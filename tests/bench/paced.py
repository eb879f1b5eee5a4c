"""The tail of latency: h2load can send on a clock, which wrk cannot, and notes how long each answer took.

wrk's own percentiles are not used. It fills in the requests that it thinks it could not send while one took
long, so that the 32 which wait for their connection's handshake, of 50,000, become the 99th percentile.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.pairs import Pair
from tests.bench.rig import BenchFailed

CLIENTS = 32
_PATIENCE = 60  # seconds beyond the length of the load


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Latencies of a load, in microseconds; `per_second` is the rate that was kept."""

    per_second: float
    median_us: float
    p99_us: float
    worst_us: float


def paced(pair: Pair, per_second: float, seconds: int) -> Tail:
    """Send that many requests a second over 32 connections. Raises BenchFailed for any that failed."""
    each = max(1, round(per_second / CLIENTS))
    return _tail(pair, each * CLIENTS * seconds, (f"--rps={each}",), seconds)


def unpaced(pair: Pair, requests: int, seconds: int) -> Tail:
    """Send that many over 32 connections, each as soon as the one before is answered. Raises BenchFailed."""
    return _tail(pair, requests // CLIENTS * CLIENTS, (), seconds)


def _tail(pair: Pair, requests: int, flags: tuple[str, ...], seconds: int) -> Tail:
    """The first request of each connection waits for its handshake and is left out."""
    binary = shutil.which("h2load")
    if binary is None:
        raise BenchFailed("h2load measures the tail: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "requests"
        command = [
            binary, "--h1", f"-c{CLIENTS}", "-t1", f"-n{requests}", *flags, f"--log-file={log}",
            f"http://{pair.address}:{pair.port}/",
        ]  # fmt: skip
        said = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds * 3 + _PATIENCE
        )
        rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    bad = [row for row in rows if row[1] != "200"]
    if bad or len(rows) < requests:
        raise BenchFailed(f"{pair.name}: {len(bad)} of {len(rows)} requests failed:\n{said.stdout}")
    rows.sort(key=lambda row: int(row[0]))
    begun, ended = int(rows[0][0]), int(rows[-1][0])
    took = sorted(int(row[2]) for row in rows[CLIENTS:])
    return Tail(
        per_second=len(rows) / max(1e-6, (ended - begun) / 1e6),
        median_us=took[len(took) // 2],
        p99_us=took[len(took) * 99 // 100],
        worst_us=took[-1],
    )
