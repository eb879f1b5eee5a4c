"""`python -m tests.bench.lossy`: what lost packets cost conversations across a WAN, in a tunnel and alone.

The two sites of `tests.bench.wan`, as root, with a link that loses frames by chance. So many connections are
open; on each a word goes out and its echo is waited for, and then a moment passes. What is told is how long
the echo took. In a tunnel a lost packet holds up the words of all connections, but the words behind it tell
TCP of the loss; alone, a connection waits for a timer.

With `--bulk` each connection is a download, and what is told is how much all of them together got.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.rig import BenchFailed
from tests.bench.sites import ADDRESS, sites
from tests.bench.wan import ENVOY, FLOOD, FRESH, TUNNEL, bring_up

ROWS = {"a connection each": FRESH, "in a tunnel": TUNNEL, "two Envoys": ENVOY}
HEAD = (
    "| loss, % | connections | | words | median, ms | 99th | 99.9th | longest |\n"
    "|---|---|---|---|---|---|---|---|"
)
BULK_HEAD = "| loss, % | streams | | MB/s |\n|---|---|---|---|"
_WORD = bytes(64)
_PAUSE = 0.05  # seconds between an echo and the next word
_PATIENCE = 30  # seconds
_START = 3.0  # seconds of a download that do not count: windows open


def main() -> int:
    """Bring everything up for each rate of loss, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lossy", description=__doc__)
    parser.add_argument("--one-way", type=float, default=40.0, help="milliseconds")
    parser.add_argument("--loss", default="0,0.5,2", help="per cent of frames, with commas")
    parser.add_argument("--connections", help="with commas; default 4,32, of bulk 1,8")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row")
    parser.add_argument("--bulk", action="store_true", help="downloads in place of words")
    args = parser.parse_args()
    head, measure, counts = (BULK_HEAD, downloaded, "1,8") if args.bulk else (HEAD, told, "4,32")
    print(head, flush=True)
    try:
        for lost in map(float, args.loss.split(",")):
            with tempfile.TemporaryDirectory(prefix="lossy-") as name, contextlib.ExitStack() as stack:
                stack.enter_context(sites(Path(name), args.one_way, lost))
                bring_up(Path(name), stack)
                for count in map(int, (args.connections or counts).split(",")):
                    for row, port in ROWS.items():
                        said = measure(port, count, args.seconds)
                        print(f"| {lost:g} | {count} | {row} | {said} |", flush=True)
    except BenchFailed as error:
        print(f"lossy: {error}", file=sys.stderr)
        return 1
    return 0


def told(port: int, connections: int, seconds: float) -> str:
    """So many conversations at once through that port."""
    ends = time.monotonic() + seconds
    with ThreadPoolExecutor(connections) as clients:
        took = sorted(
            one for some in clients.map(lambda _: converse(port, ends), range(connections)) for one in some
        )
    cuts = statistics.quantiles(took, n=1000)
    return f"{len(took):,} | {cuts[499]:.0f} | {cuts[989]:.0f} | {cuts[998]:.0f} | {took[-1]:.0f}"


def downloaded(port: int, streams: int, seconds: float) -> str:
    """MB/s of so many downloads at once through that port, without their start."""
    begins = time.monotonic() + _START
    with ThreadPoolExecutor(streams) as clients:
        sizes = clients.map(lambda _: download(port, begins, begins + seconds), range(streams))
        return f"{sum(sizes) / seconds / 1e6:.2f}"


def download(port: int, begins: float, ends: float) -> int:
    """One connection; how many bytes came between the two moments."""
    buffer, size = bytearray(1 << 20), 0
    with socket.create_connection((ADDRESS["dc1"], port), timeout=_PATIENCE) as sock:
        sock.sendall(FLOOD)
        while (now := time.monotonic()) < ends:
            heard = sock.recv_into(buffer)
            if not heard:
                raise BenchFailed(f"port {port} hung up amid a download")
            size += heard if now >= begins else 0
    return size


def converse(port: int, ends: float) -> list[float]:
    """One connection; the milliseconds of each echo after the first, before which there is a handshake."""
    took = []
    with socket.create_connection((ADDRESS["dc1"], port), timeout=_PATIENCE) as sock:
        while time.monotonic() < ends:
            began = time.perf_counter()
            sock.sendall(_WORD)
            left = len(_WORD)
            while left:
                heard = len(sock.recv(left))
                if not heard:
                    raise BenchFailed(f"port {port} hung up instead of answering")
                left -= heard
            took.append((time.perf_counter() - began) * 1e3)
            time.sleep(_PAUSE)
    return took[1:]


if __name__ == "__main__":
    sys.exit(main())
