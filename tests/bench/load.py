"""The load: wrk for requests and connections, curl for bulk. Each point gives one figure a round."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from tests.bench.pairs import Pair
from tests.bench.rig import BULK_BYTES, BenchFailed, cpu_seconds, resident_kib


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One column of the table."""

    name: str
    unit: str
    better: str  # "more" or "less"


POINTS = (
    Point(name="latency, 1 connection", unit="µs", better="less"),
    Point(name="requests/s, 32 connections", unit="1/s", better="more"),
    Point(name="requests/s, 256 connections", unit="1/s", better="more"),
    Point(name="CPU per request, 32 connections", unit="µs", better="less"),
    Point(name="new connections/s", unit="1/s", better="more"),
    Point(name="bulk down, 1 stream", unit="MB/s", better="more"),
    Point(name="resident after load, larger half", unit="MB", better="less"),
)


def measure(pair: Pair, seconds: int) -> dict[str, float]:
    """One round of every point through one pair."""
    latency = _wrk(pair, connections=1, seconds=seconds)
    cpu = sum(map(cpu_seconds, pair.pids))
    many = _wrk(pair, connections=32, seconds=seconds)
    cpu = sum(map(cpu_seconds, pair.pids)) - cpu
    crowd = _wrk(pair, connections=256, seconds=seconds)
    fresh = _wrk(pair, connections=16, seconds=seconds, header="Connection: close")
    return {
        "latency, 1 connection": latency.mean_us,
        "requests/s, 32 connections": many.per_second,
        "requests/s, 256 connections": crowd.per_second,
        "CPU per request, 32 connections": cpu / many.requests * 1e6,
        "new connections/s": fresh.per_second,
        "bulk down, 1 stream": _bulk(pair),
        "resident after load, larger half": max((resident_kib(pid) for pid in pair.pids), default=0) / 1000,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wrk:
    requests: int
    per_second: float
    mean_us: float


def _wrk(pair: Pair, *, connections: int, seconds: int, header: str = "X-Bench: 1") -> _Wrk:
    binary = shutil.which("wrk")
    if binary is None:
        raise BenchFailed("wrk makes the load: apt-get install wrk")
    url = f"http://{pair.address}:{pair.port}/"
    command = [binary, "-t1", f"-c{connections}", f"-d{seconds}s", "-H", header, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if re.search(r"Socket errors: .*[1-9]|Non-2xx", text):
        raise BenchFailed(f"{pair.name}: the load saw errors, so the figure means nothing:\n{text}")
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    latency = re.search(r"Latency\s+([\d.]+)(us|ms|s)\b", text)
    if not (requests and rate and latency):
        raise BenchFailed(f"{pair.name}: cannot read wrk's answer:\n{text}")
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}[latency[2]]
    return _Wrk(requests=int(requests[1]), per_second=float(rate[1]), mean_us=float(latency[1]) * scale)


def _bulk(pair: Pair) -> float:
    url = f"http://{pair.address}:{pair.port}/bulk"
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}", url]
    size, speed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    if int(size) != BULK_BYTES:
        raise BenchFailed(f"{pair.name}: {size} bytes of {BULK_BYTES} arrived")
    return float(speed) / 1e6
