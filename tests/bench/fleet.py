"""`python -m tests.bench.fleet`: a thousand sidecars' watchers beside one agent, at rest and in a rotation.

Every sidecar is a whole control plane as `sidecar run` makes it, with its registration, roots, leaf,
intentions in both directions and the lists of two upstreams, each as a blocking read of its own
(`consul_connections` 0, so that none is asked in turn; the agent's limit of connections of one address is
raised). They share one process with connections of their own; the agent is another one: the embedded
datacenter, or with --consul a real one, from CONSUL_BIN or PATH. After a while of rest the root is rotated,
and each sidecar's new leaf is waited for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
import trio

from agent.consul.http import Client, Request, Response
from agent.control.plane import ControlPlane
from agent.process.memory import settle
from tests.bench.fleet_plot import picture
from tests.contract.alone import managed
from tests.contract.chains import new_key
from tests.contract.client import Api
from tests.contract.federation import Kind
from tests.contract.planes import ready, registered, sidecar

UPSTREAMS = 2
CONNECTIONS = 12_000  # that the agent takes of one address, fewer than it may open files
CONFIGURATION = "/v1/connect/ca/configuration"
AT_ONCE = 50  # sidecars that start together
PATIENCE = 420.0  # seconds for all to be ready, and for all to have a new leaf


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a run has shown. Times are seconds after the rotation, below 0 before it."""

    sidecars: int
    ready: float = 0.0  # seconds until all were
    call: float = 0.0  # seconds that the request to rotate took
    requests: list[float] = field(default_factory=list)
    leaves: list[float] = field(default_factory=list)
    longest_pause: float = 0.0  # of this process's own loop, in seconds: what it cannot see more exactly
    failures: dict[str, int] = field(default_factory=dict)

    def per_second(self) -> dict[int, int]:
        """Requests by second."""
        return Counter(int(moment // 1) for moment in self.requests)

    def rest(self) -> float:
        """Requests a second before the rotation."""
        before = [moment for moment in self.requests if moment < 0]
        return len(before) / -min(before) if before else 0.0

    def peak(self) -> int:
        """The most requests in one second after the rotation."""
        return max((count for second, count in self.per_second().items() if second >= 0), default=0)

    def spread(self) -> list[float]:
        """When a tenth, half, nine tenths and the last of the sidecars had their new leaf."""
        tenths = statistics.quantiles(self.leaves, n=10)
        return [tenths[0], statistics.median(self.leaves), tenths[8], max(self.leaves)]


def main() -> int:
    """Run, print the figures, write them where asked. Exit 1 if a sidecar got no new leaf."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--sidecars", type=int, default=1000)
    parser.add_argument("--rest", type=int, default=30, metavar="SECONDS", help="before the rotation")
    parser.add_argument("--consul", action="store_true", help="beside a real Consul")
    parser.add_argument("--output", type=Path, metavar="NAME", help="write NAME.md and NAME.svg")
    args = parser.parse_args()
    kind: Kind = "consul" if args.consul else "embedded"
    seen = Seen(sidecars=args.sidecars)
    with (
        tempfile.TemporaryDirectory(prefix="sidecar-fleet-") as directory,
        managed(kind, "allow", Path(directory), connections=CONNECTIONS) as (api, manager),
        _counted() as requests,
    ):
        settle()  # as `run` does
        for number in range(args.sidecars):
            registered(api, f"web{number}", UPSTREAMS)
        trio.run(_watched, api, manager, seen, requests, args.rest)
    lines = told(seen, kind)
    print("\n".join(lines))
    if args.output is not None:
        args.output.with_suffix(".md").write_text("\n".join([*lines, ""]))
        args.output.with_suffix(".svg").write_text(picture(seen.per_second(), seen.leaves, lines[0]))
    return 0 if len(seen.leaves) == seen.sidecars else 1


def told(seen: Seen, kind: str) -> list[str]:
    """The figures in lines; the first is a title."""
    title = f"{seen.sidecars:,} sidecars beside one agent ({kind})"
    if len(seen.leaves) != seen.sidecars:
        return [title, f"FAILED: {len(seen.leaves)} of them have a new leaf; failures {seen.failures}"]
    tenth, half, most, last = seen.spread()
    return [
        title,
        f"all ready after {seen.ready:.1f} s; the request to rotate took {seen.call:.2f} s",
        f"new leaf: a tenth after {tenth:.1f} s, half {half:.1f}, nine tenths {most:.1f}, all {last:.1f} s",
        f"requests: {seen.rest():.1f} a second at rest, {seen.peak():,} in the busiest second",
        f"refused or failed: {seen.failures or 'none'}",
        f"this process's own longest pause: {seen.longest_pause:.2f} s",
    ]


@contextmanager
def _counted() -> Iterator[list[float]]:
    """Note the time of each request that any sidecar sends."""
    moments: list[float] = []
    exchange = Client.exchange

    async def noted(client: Client, request: Request, seconds: float) -> Response:
        moments.append(monotonic())
        return await exchange(client, request, seconds)

    with pytest.MonkeyPatch.context() as patched:  # counted where every request passes
        patched.setattr(Client, "exchange", noted)
        yield moments


async def _watched(api: Api, manager: Api, seen: Seen, moments: list[float], rest: int) -> None:
    planes: list[ControlPlane] = []
    slots, began = trio.CapacityLimiter(AT_ONCE), monotonic()

    async def one(number: int) -> None:
        await slots.acquire_on_behalf_of(number)
        async with sidecar(api, f"web{number}", api.token, connections=0) as plane:
            while not ready(plane):  # noqa: ASYNC110  the cells of many watches, of which none tells of all
                await trio.sleep(0.05)
            slots.release_on_behalf_of(number)
            planes.append(plane)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(seen.sidecars):
            nursery.start_soon(one, number)
        nursery.start_soon(_pauses, seen)
        with trio.fail_after(PATIENCE):
            while len(planes) < seen.sidecars:  # noqa: ASYNC110  as above
                await trio.sleep(0.05)
        seen.ready = monotonic() - began
        await trio.sleep(5)  # for what follows a start
        moments.clear()
        await trio.sleep(rest)
        await _rotated(manager, planes, seen, moments)
        nursery.cancel_scope.cancel()


async def _rotated(manager: Api, planes: list[ControlPlane], seen: Seen, moments: list[float]) -> None:
    before = {id(plane): _serial(plane) for plane in planes}
    seen.longest_pause, zero = 0.0, monotonic()
    await trio.to_thread.run_sync(_rotate, manager)
    seen.call = monotonic() - zero
    waiting = list(planes)
    while waiting and monotonic() < zero + PATIENCE:
        await trio.sleep(0.05)
        late = [plane for plane in waiting if _serial(plane) == before[id(plane)]]
        seen.leaves += [monotonic() - zero] * (len(waiting) - len(late))
        waiting = late
    seen.requests = [moment - zero for moment in moments]
    for plane in planes:
        for status in plane.statuses():
            for reason, count in status.failures.items():
                seen.failures[reason] = seen.failures.get(reason, 0) + count


def _serial(plane: ControlPlane) -> int:
    contexts = plane.snapshot.credentials.value
    return contexts.credentials.leaf.certificate.serial_number if contexts else 0


def _rotate(manager: Api) -> None:
    configuration = manager.get(CONFIGURATION).json
    configuration["Config"] |= {"PrivateKey": new_key(), "RootCert": ""}
    answer = manager.put(CONFIGURATION, configuration)
    assert answer.status == 200, answer.text


async def _pauses(seen: Seen) -> None:
    """Note how late this process's own loop comes round."""
    while True:
        before = monotonic()
        await trio.sleep(0.1)
        seen.longest_pause = max(seen.longest_pause, monotonic() - before - 0.1)


if __name__ == "__main__":
    sys.exit(main())
