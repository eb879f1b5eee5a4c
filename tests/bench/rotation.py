"""`python -m tests.bench.rotation`: twenty root rotations under full load, then the retirement of old roots.

Two datacenters, a sidecar in each, both directions; leaves live for two minutes. Prints when everybody
switched, and exits 1 if a handshake failed, a stream broke, or a root stayed that should have gone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import trio

from tests.rotation.load import Load, load
from tests.rotation.mesh import Mesh, mesh, until
from tests.rotation.rotations import Rotated, rotations, table


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rotation", description=__doc__)
    parser.add_argument("--rotations", type=int, default=20)
    parser.add_argument("--per-second", type=float, default=200.0, help="new connections")
    parser.add_argument("--lasting", type=int, default=500, help="long-lived connections")
    parser.add_argument("--beat", type=float, default=2.0, help="seconds between two words on one of them")
    parser.add_argument("--seconds", type=float, default=0.0, help="load before the first rotation")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two rotations")
    parser.add_argument("--leaf-ttl", type=int, default=120, help="seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rotation-") as name:
        return trio.run(run, Path(name), args)


async def run(directory: Path, args: argparse.Namespace) -> int:
    """Everything once; the exit code."""
    # Streams outlive the leaf they began with, so expired peers get grace: what is measured is rotation.
    async with mesh(directory, leaf_ttl=f"{args.leaf_ttl}s", grace="never") as whole:
        ports = [sidecar.upstream for sidecar in whole.sidecars]
        shape = {"per_second": args.per_second, "lasting": args.lasting, "beat": args.beat}
        async with load(ports, **shape) as counted:
            await trio.sleep(args.seconds)
            done = await rotations(whole, args.rotations, args.pause)
        print(report(counted, done), flush=True)
        if not done:
            return 0
        print(table(done), flush=True)
        retired = await retirement(whole, args.leaf_ttl)
    print(f"old roots retired everywhere {retired:.0f} s after the last rotation")
    return 1 if counted.failed or counted.broken else 0


def report(counted: Load, done: list[Rotated]) -> str:
    """What the load saw."""
    slowest = max((max(one.sidecars.values()) for one in done), default=0.0)
    latencies = sorted(counted.latencies)
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
    made = f"new connections: {counted.made}, {counted.rate:.0f}/s, {len(counted.failed)} failed"
    lines = [
        f"{len(done)} rotations in {counted.seconds:.0f} s; the slowest sidecar took {slowest:.2f} s",
        f"{made}; median {statistics.median(latencies) * 1e3:.1f} ms, p99 {p99 * 1e3:.0f} ms",
        f"lasting connections: {counted.lasting}, {counted.words} words, {len(counted.broken)} broken",
        *counted.failed[:5],
        *counted.broken[:5],
    ]
    return "\n".join(lines)


async def retirement(whole: Mesh, leaf_ttl: int) -> float:
    """Until one root is left in both datacenters and both sidecars; seconds."""

    async def one_left() -> bool:
        await trio.sleep(1)
        for site in (whole.dc1, whole.dc2):
            if len((await site.roots())["Roots"]) != 1:
                return False
        listed = [(await sidecar.status())["credentials"]["roots"] for sidecar in whole.sidecars]
        return all(len(roots) == 1 for roots in listed)

    return await until(one_left, "the old roots are retired", 4.0 * leaf_ttl + 60)


if __name__ == "__main__":
    sys.exit(main())
