"""The points of the bench: each gives one or more figures of one pair, once a round."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.bench.paced import paced, unpaced
from tests.bench.pairs import Pair
from tests.bench.rig import BenchFailed, cpu_seconds, family, resident_kib
from tests.bench.streams import down, standing, up, verify

WARM_UP = 1  # seconds of load before the first round
SETTLING = 3  # seconds for connections to end and memory to be given back
SHARE = 0.8  # of a contestant's own capacity, for its tail
CONNECTIONS = 32
_HERE = Path(__file__).parent
# What judged requests are like, beside the plain ones: a name, and what is said to wrk, a script first. What
# wrk repeats byte for byte, who judges requests may remember; callers have more to say.
SHAPES = {
    "each with an id of its own": ("ids.lua",),
    "bodies of 4 KiB": ("body.lua", "4096"),
    "bodies of 64 KiB": ("body.lua", "65536"),
    "8 in a pipeline": ("pipelined.lua", "8"),
}
_AT_WORK, _SOON = 0.1, 5.0  # seconds: of the processor's for a load that has begun, and for it to begin
BESIDE_PER_SECOND = 2000  # requests of the connections beside which others are new: little, so that all can


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table."""

    name: str
    unit: str
    better: str = "more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything: seconds of each load, MiB of bulk in all, how many connections stand idle."""

    seconds: int
    mebibytes: int
    standing: tuple[int, ...]


FIGURES = (
    Figure(name="median latency, 1 connection", unit="µs", better="less"),
    Figure(name="requests/s, 32 connections", unit="1/s"),
    Figure(name="99th percentile, 32 connections", unit="µs", better="less"),
    Figure(name="99th percentile at 80 % of that", unit="µs", better="less"),
    Figure(name="CPU per request, 32 connections", unit="µs", better="less"),
    Figure(name="requests/s, 256 connections", unit="1/s"),
    *(Figure(name=f"requests/s, 32 connections, {shape}", unit="1/s") for shape in SHAPES),
    *(Figure(name=f"CPU per request, {shape}", unit="µs", better="less") for shape in SHAPES),
    Figure(name="new connections/s, 16 at a time", unit="1/s"),
    Figure(name="CPU per new connection", unit="µs", better="less"),
    Figure(name="99th percentile beside 64 new ones at a time", unit="µs", better="less"),
    Figure(name="bulk down, 1 stream", unit="MB/s"),
    Figure(name="bulk down, 8 streams", unit="MB/s"),
    Figure(name="bulk up, 1 stream", unit="MB/s"),
    Figure(name="bulk up, 8 streams", unit="MB/s"),
    Figure(name="CPU per GB, down, 1 stream", unit="ms", better="less"),
    Figure(name="from start to the first answer", unit="ms", better="less"),
    Figure(name="resident at start, larger half", unit="MB", better="less"),
    Figure(name="resident after all rounds", unit="MB", better="less"),
    Figure(name="resident with 200 idle connections", unit="MB", better="less"),
    Figure(name="resident with 1000 idle connections", unit="MB", better="less"),
    Figure(name="resident with 5000 idle connections", unit="MB", better="less"),
    Figure(name="resident after they closed", unit="MB", better="less"),
)

Figures = dict[str, float]
T = TypeVar("T")


def warm_up(pair: Pair) -> Figures:
    """Before the first round: what it takes at rest, and then a little load that counts for nothing."""
    resting = _resident(pair)
    _wrk(pair, connections=4, seconds=WARM_UP)
    return {
        "resident at start, larger half": resting,
        "from start to the first answer": pair.ready_seconds * 1e3,
    }


def measure(pair: Pair, size: Size) -> Figures:
    """One round of every point of speed."""
    verify(pair)
    return {
        "median latency, 1 connection": _wrk(pair, connections=1, seconds=size.seconds).median_us,
        **_requests(pair, size),
        **_connections(pair, size),
        **({} if pair.judges_requests else _bulk(pair, size)),
    }


def footprint(pair: Pair, size: Size) -> Figures:
    """After the last round: what it takes now, and while many connections stand idle."""
    figures = {"resident after all rounds": _resident(pair)}
    for count in size.standing:
        with standing(pair, count):
            figures[f"resident with {count} idle connections"] = _resident(pair)
        time.sleep(SETTLING)
    figures["resident after they closed"] = _resident(pair)
    return figures


def requests_per_second(pair: Pair, connections: int, seconds: int, *, fresh: bool = False) -> float:
    """As many as go; `fresh`: each on a connection of its own."""
    header = "Connection: close" if fresh else "X-Bench: 1"
    return _wrk(pair, connections=connections, seconds=seconds, header=header).per_second


def cost(pair: Pair, connections: int, seconds: int, *, fresh: bool) -> tuple[float, float]:
    """The same, and the CPU of both halves for each, in µs."""
    header = "Connection: close" if fresh else "X-Bench: 1"
    load, cpu = _with_cpu(pair, lambda: _wrk(pair, connections=connections, seconds=seconds, header=header))
    return load.per_second, cpu / load.requests * 1e6


def resident_mb(pair: Pair) -> float:
    """Of the larger half, now."""
    return _resident(pair)


def _requests(pair: Pair, size: Size) -> Figures:
    many, cpu = _with_cpu(pair, lambda: _wrk(pair, connections=CONNECTIONS, seconds=size.seconds))
    crowd = _wrk(pair, connections=256, seconds=2 * size.seconds)  # it begins with 256 handshakes
    return {
        "requests/s, 32 connections": many.per_second,
        "99th percentile, 32 connections": unpaced(pair, many.requests // 2, size.seconds).p99_us,
        "99th percentile at 80 % of that": paced(pair, many.per_second * SHARE, size.seconds).p99_us,
        "CPU per request, 32 connections": cpu / many.requests * 1e6,
        "requests/s, 256 connections": crowd.per_second,
        **(_shaped(pair, size) if pair.judges_requests else {}),
    }


def _shaped(pair: Pair, size: Size) -> Figures:
    """Requests of each shape."""
    figures = {}
    for shape, script in SHAPES.items():
        load, cpu = _with_cpu(
            pair, partial(_wrk, pair, connections=CONNECTIONS, seconds=size.seconds, script=script)
        )
        figures[f"requests/s, 32 connections, {shape}"] = load.per_second
        figures[f"CPU per request, {shape}"] = cpu / load.requests * 1e6
    return figures


def _connections(pair: Pair, size: Size) -> Figures:
    fresh, cpu = _with_cpu(
        pair, lambda: _wrk(pair, connections=16, seconds=size.seconds, header="Connection: close")
    )
    return {
        "new connections/s, 16 at a time": fresh.per_second,
        "CPU per new connection": cpu / fresh.requests * 1e6,
        **(_beside(pair, size) if pair.pids else {}),
    }


def _beside(pair: Pair, size: Size) -> Figures:
    """The tail of connections that are there already, while others come as fast as they can."""
    with ThreadPoolExecutor(1) as beside:
        others = beside.submit(
            _wrk, pair, connections=64, seconds=size.seconds + 1, header="Connection: close"
        )
        _until_it_works(pair)
        tail = paced(pair, BESIDE_PER_SECOND, size.seconds)
        others.result()
    return {"99th percentile beside 64 new ones at a time": tail.p99_us}


def _until_it_works(pair: Pair) -> None:
    """Until the load has come to it: its processor time says so, whoever it is."""
    begun, until = _cpu(pair), time.perf_counter() + _SOON
    while _cpu(pair) - begun < _AT_WORK:
        if time.perf_counter() > until:
            raise BenchFailed(f"{pair.name}: no load has come within {_SOON} s")
        time.sleep(0.01)


def _bulk(pair: Pair, size: Size) -> Figures:
    whole, eighth = size.mebibytes, size.mebibytes // 8
    one, cpu = _with_cpu(pair, lambda: down(pair, 1, whole))
    return {
        "bulk down, 1 stream": one,
        "CPU per GB, down, 1 stream": cpu / (whole << 20) * 1e12,
        "bulk down, 8 streams": down(pair, 8, eighth),
        "bulk up, 1 stream": up(pair, 1, whole),
        "bulk up, 8 streams": up(pair, 8, eighth),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrk:
    """A load of wrk."""

    requests: int
    per_second: float
    median_us: float


def _with_cpu(pair: Pair, load: Callable[[], T]) -> tuple[T, float]:
    """The result of a load, and the CPU seconds both halves have spent on it."""
    before = _cpu(pair)
    return load(), _cpu(pair) - before


def _cpu(pair: Pair) -> float:
    return sum(cpu_seconds(process) for pid in pair.pids for process in family(pid))


def _resident(pair: Pair) -> float:
    halves = (sum(map(resident_kib, family(pid))) for pid in pair.pids)
    return max(halves, default=0) * 1024 / 1e6


def _wrk(
    pair: Pair, *, connections: int, seconds: int, header: str = "X-Bench: 1", script: Sequence[str] = ()
) -> Wrk:
    """One load; `script`: the name of one in this room, and what is said to it."""
    binary = shutil.which("wrk")
    if binary is None:
        raise BenchFailed("wrk makes the load: apt-get install wrk")
    url = f"http://{pair.address}:{pair.port}/"
    command = [binary, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", header]
    command += ["-s", str(_HERE / script[0]), url, "--", *script[1:]] if script else [url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    return read_wrk(text, pair.name)


def read_wrk(text: str, name: str) -> Wrk:
    """What wrk says. Raises BenchFailed if a request has failed; to have taken long is no failure."""
    if re.search(r"Socket errors: .*(connect|read|write) [1-9]|Non-2xx", text):
        raise BenchFailed(f"{name}: the load saw errors, so the figure means nothing:\n{text}")
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None:
        raise BenchFailed(f"{name}: cannot read wrk's answer:\n{text}")
    return Wrk(
        requests=int(requests[1]),
        per_second=float(rate[1]),
        median_us=_microseconds(text, "50%"),
    )


def _microseconds(text: str, label: str) -> float:
    found = re.search(rf"^\s*{label}\s+([\d.]+)(us|ms|s)\b", text, re.MULTILINE)
    if found is None:
        raise BenchFailed(f"cannot read {label} in wrk's answer:\n{text}")
    return float(found[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[found[2]]
