"""Load at a constant rate: h2load sends on a clock, which wrk cannot, and notes how long each answer took."""

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
    """Latencies of a load at a constant rate, in microseconds; `per_second` is the rate that was kept."""

    per_second: float
    median_us: float
    p99_us: float
    worst_us: float


def paced(pair: Pair, per_second: float, seconds: int) -> Tail:
    """Send that many requests a second over 32 connections. Raises BenchFailed for any that failed.

    The first request of each connection waits for its handshake and is left out.
    """
    binary = shutil.which("h2load")
    if binary is None:
        raise BenchFailed("h2load makes the load at a constant rate: apt-get install nghttp2-client")
    each = max(1, round(per_second / CLIENTS))
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "requests"
        command = [
            binary, "--h1", f"-c{CLIENTS}", "-t1", f"-n{each * CLIENTS * seconds}", f"--rps={each}",
            f"--log-file={log}", f"http://{pair.address}:{pair.port}/",
        ]  # fmt: skip
        said = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds * 3 + _PATIENCE
        )
        rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    bad = [row for row in rows if row[1] != "200"]
    if bad or len(rows) < each * CLIENTS * seconds:
        raise BenchFailed(f"{pair.name}: {len(bad)} of {len(rows)} paced requests failed:\n{said.stdout}")
    rows.sort(key=lambda row: int(row[0]))
    begun, ended = int(rows[0][0]), int(rows[-1][0])
    took = sorted(int(row[2]) for row in rows[CLIENTS:])
    return Tail(
        per_second=len(rows) / max(1e-6, (ended - begun) / 1e6),
        median_us=took[len(took) // 2],
        p99_us=took[len(took) * 99 // 100],
        worst_us=took[-1],
    )
