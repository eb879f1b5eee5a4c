"""`python -m tests.bench.rotation`: twenty root rotations under full load, then the retirement of old roots.

Two datacenters, a sidecar in each, both directions; leaves live for two minutes. Prints when everybody
switched, and what load and sidecars saw; `--table FILE` writes the same there. The last line is the verdict:

    held        nothing failed, under the load that was asked for
    FAILED      (exit 1) a handshake failed, a stream broke, a rotation did not arrive, or a root stayed that
                should have gone
    UNDECIDED   (exit 2) nothing of that was seen, but clients lost patience or the load fell short: a machine
                that is too busy shows nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent.inbound.verdict import InboundReason
from agent.net.dial import DialReason
from agent.net.handshake import HandshakeReason
from agent.outbound.reasons import OutboundReason
from certs.peer import PeerReason
from tests.rotation.load import Load, load
from tests.rotation.mesh import TUNNELLED, Mesh, mesh, until
from tests.rotation.rotations import Rotated, rotations, table

# What a sidecar names so says how busy the machine is, not whom it trusts.
IMPATIENCE = {
    HandshakeReason.SILENT.value,
    HandshakeReason.STALLED.value,
    HandshakeReason.CLOSED.value,
    HandshakeReason.RESET.value,
    DialReason.TIMEOUT.value,
    OutboundReason.DEADLINE.value,
}
HANDSHAKE_FAILED = {
    *(reason.value for kind in (HandshakeReason, PeerReason) for reason in kind),
    InboundReason.CREDENTIALS_EXPIRED.value,
    OutboundReason.CREDENTIALS_EXPIRED.value,
    OutboundReason.REFUSED_BY_PEER.value,
    OutboundReason.WRONG_IDENTITY.value,
} - {*IMPATIENCE, HandshakeReason.PROBE.value}

ENOUGH = 0.97  # of the rate asked for
HELD, UNDECIDED, FAILED = "held", "UNDECIDED", "FAILED"

Endings = Counter[tuple[str, str, str]]  # sidecar, inbound, outbound or attempts, reason


@dataclass(kw_only=True)
class Found:
    """What a run has shown; filled as it goes, so that one that breaks off shows what there was."""

    load: Load = field(default_factory=Load)
    wanted: float = 0.0  # new connections per second
    lasting: int = 0  # wanted long-lived ones
    rotations: int = 0  # wanted
    done: list[Rotated] = field(default_factory=list)
    endings: Endings = field(default_factory=Counter)
    retired: float | None = None
    broke_off: str = ""

    @property
    def handshakes_failed(self) -> int:
        """As the sidecars count them, whether another attempt served the connection or not."""
        return sum(count for (_, _, reason), count in self.endings.items() if reason in HANDSHAKE_FAILED)

    @property
    def doubts(self) -> list[str]:
        """Why a run in which nothing failed shows less than it was to show."""
        seen = self.load
        told = {
            f"{len(seen.late)} clients lost patience": bool(seen.late),
            f"{seen.rate:.0f} new connections a second, not {self.wanted:g}": seen.rate
            < ENOUGH * self.wanted,
            f"{seen.lasting} lasting connections, not {self.lasting}": seen.lasting < self.lasting,
            f"{len(self.done)} rotations, not {self.rotations}": len(self.done) < self.rotations,
            "the old roots have not been seen to go": self.retired is None,
        }
        return [text for text, holds in told.items() if holds]

    @property
    def verdict(self) -> str:
        """Whether nobody noticed; undecided is not held."""
        if self.load.failed or self.load.broken or self.handshakes_failed or self.broke_off:
            return FAILED
        return UNDECIDED if self.doubts else HELD


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
    parser.add_argument("--tunnels", action="store_true", help="all connections in tunnels")
    parser.add_argument("--table", type=Path, help="a file to write the outcome to as well")
    args = parser.parse_args()
    found = Found(wanted=args.per_second, lasting=args.lasting, rotations=args.rotations)
    with tempfile.TemporaryDirectory(prefix="rotation-") as name:
        trio.run(run, Path(name), args, found)
    text = report(found)
    print(text)
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")
    return {HELD: 0, UNDECIDED: 2, FAILED: 1}[found.verdict]


async def run(directory: Path, args: argparse.Namespace, found: Found) -> None:
    """Everything once."""
    # Streams outlive the leaf they began with, so expired peers get grace: what is measured is rotation.
    flags = ["-expired-peer-grace", "never", *(TUNNELLED if args.tunnels else ())]
    async with mesh(directory, leaf_ttl=f"{args.leaf_ttl}s", flags=flags) as whole:
        ports = [sidecar.upstream for sidecar in whole.sidecars]
        shape = {"per_second": args.per_second, "lasting": args.lasting, "beat": args.beat}
        before = await endings(whole)
        try:
            async with load(ports, **shape) as found.load:
                await trio.sleep(args.seconds)
                await rotations(whole, args.rotations, args.pause, found.done)
            found.endings = await endings(whole) - before
            if found.done:
                found.retired = await retirement(whole, args.leaf_ttl)
        except* AssertionError as group:  # of `until`, which says what did not come about
            found.broke_off = "; ".join(_texts(group))
            found.endings = await endings(whole) - before


def _texts(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [text for inner in error.exceptions for text in _texts(inner)]
    return [str(error)]


async def endings(whole: Mesh) -> Endings:
    """How connections and attempts have ended in both sidecars so far."""
    return Counter(
        {
            (sidecar.name, kind, reason): count
            for sidecar in whole.sidecars
            for kind, reasons in (await sidecar.endings()).items()
            for reason, count in reasons.items()
        }
    )


def report(found: Found) -> str:
    """What there is to say, the verdict last."""
    lines = [*_of_load(found), *_of_sidecars(found.endings)]
    if found.done:
        slowest = max(max(one.sidecars.values()) for one in found.done)
        lines += [f"{len(found.done)} rotations; the slowest sidecar took {slowest:.2f} s", table(found.done)]
    if found.retired is not None:
        lines.append(f"old roots retired everywhere {found.retired:.0f} s after the last rotation")
    if found.broke_off:
        lines.append(f"broke off: {found.broke_off}")
    lines += [f"in doubt: {doubt}" for doubt in found.doubts]
    lines.append(found.verdict)
    return "\n".join(lines)


def _of_load(found: Found) -> list[str]:
    seen = found.load
    latencies = sorted(seen.latencies) or [0.0]
    p99 = latencies[int(len(latencies) * 0.99)]
    short = (
        "" if seen.rate >= ENOUGH * found.wanted else f" (asked for {found.wanted:g}/s: the machine is busy)"
    )
    return [
        f"new connections: {seen.made} in {seen.seconds:.0f} s, {seen.rate:.0f}/s{short}",
        f"  answered {seen.answered}, failed {len(seen.failed)}, client time-outs {len(seen.late)}",
        f"  median {statistics.median(latencies) * 1e3:.1f} ms, p99 {p99 * 1e3:.0f} ms",
        f"lasting connections: {seen.lasting}, {seen.words} words, {len(seen.broken)} broken",
        *(f"  {fault}" for kind in (seen.failed, seen.broken, seen.late) for fault in kind[:5]),
        f"failed handshakes, as the sidecars count them: {found.handshakes_failed}",
    ]


def _of_sidecars(seen: Endings) -> list[str]:
    """Every ending but the orderly one."""
    kept = sorted(item for item in seen.items() if item[0][2] != "clean")
    return [f"  {' '.join(which)}: {count}" for which, count in kept]


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
