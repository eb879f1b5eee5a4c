"""`python -m tests.bench.crowd`: sixty sidecar processes on one host, beside an agent with its default limit.

Each has eight upstreams, which all of them share, and is started at the same moment as the others. From the
start to the end a client asks the agent on a connection of its own, four times a second, and the kernel is
asked how many connections this host has to the agent. Then an instance of one upstream is registered, and
it is noted when each sidecar knows it. At last all but one sidecar end, and that one is watched until it
holds every list. The agent is the embedded datacenter, or with --consul a real one, from CONSUL_BIN or PATH.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.contract.alone import managed
from tests.contract.client import Api
from tests.contract.federation import Kind, free_port
from tests.contract.mesh import Sidecar, put
from tests.contract.processes import process

LIMIT = 200  # connections of one client address: Consul's default
PATIENCE = 180.0  # seconds for all to be ready, and for the last one to hold every list
LOOK = 0.25  # seconds between two looks at the agent
POLL = 1.0  # seconds between two looks at a sidecar, each of which costs it some milliseconds


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a run has shown. Times are in seconds."""

    sidecars: int
    upstreams: int
    ready: float = 0.0  # until all were, the start of the processes included
    most: int = 0  # connections of this host to the agent
    at_rest: int = 0
    asked: Counter[int] = field(default_factory=Counter)  # answers to the other client, by status; 0: none
    longest: float = 0.0  # of the other client's questions
    failures: Counter[str] = field(default_factory=Counter)  # of the watches of all sidecars, by reason
    stated: float = 0.0  # the longest `turn_seconds`
    changes: list[float] = field(default_factory=list)  # one for each sidecar that knew the new instance
    unknown: float = 0.0  # the latest look at a sidecar that did not know it yet
    alone: float = 0.0  # until the one that is left held every list
    connections_alone: int = 0
    change_alone: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether every promise was kept: the limit, the other client's answers, and the stated seconds."""
        return (
            0 < self.most <= LIMIT
            and set(self.asked) == {200}
            and not self.failures
            and len(self.changes) == self.sidecars
            and self.unknown <= self.stated
        )


def main() -> int:
    """Run and print the figures. Exit 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--sidecars", type=int, default=60)
    parser.add_argument("--upstreams", type=int, default=8)
    parser.add_argument("--rest", type=int, default=20, metavar="SECONDS", help="before the change")
    parser.add_argument("--consul", action="store_true", help="beside a real Consul")
    args = parser.parse_args()
    kind: Kind = "consul" if args.consul else "embedded"
    seen = Seen(sidecars=args.sidecars, upstreams=args.upstreams)
    with tempfile.TemporaryDirectory(prefix="sidecar-crowd-") as name, ExitStack() as stack:
        directory = Path(name)
        api, _ = stack.enter_context(managed(kind, "allow", directory, connections=LIMIT))
        for number in range(args.upstreams):
            put(api, _instance(number, "first"))
        crowd(api, directory, seen, args.rest)
    print("\n".join(told(seen, kind)))
    return 0 if seen.kept else 1


def told(seen: Seen, kind: str) -> list[str]:
    """The figures in lines; the first is a title."""
    unlike = {status: count for status, count in seen.asked.items() if status != 200}
    known = sorted(seen.changes) or [0.0]
    title = f"{seen.sidecars} sidecars of {seen.upstreams} upstreams beside one agent ({kind})"
    questions = f"{seen.asked.total()} questions, not answered with 200: {unlike or 'none'}"
    half, last = statistics.median(known), known[-1]
    held = f"held every list after {seen.alone:.0f} s by {seen.connections_alone} connections"
    return [
        title if seen.kept else f"{title}: FAILED",
        f"all ready {seen.ready:.1f} s after the start of the processes",
        f"connections to the agent: {seen.most} at the most, {seen.at_rest} at rest, of {LIMIT}",
        f"watches that were refused or failed: {dict(seen.failures) or 'none'}",
        f"another client: {questions}, the longest took {seen.longest:.2f} s",
        f"a change of endpoints, of {seen.stated:.1f} s stated: {len(seen.changes)} sidecars knew it",
        f"half of them after {half:.1f} s, the last between {seen.unknown:.1f} and {last:.1f} s",
        f"the one that was left {held}, and knew a change after {seen.change_alone:.1f} s",
    ]


def crowd(api: Api, directory: Path, seen: Seen, rest: float) -> None:
    """Bring the sidecars up beside the agent, and note what happens."""
    for number in range(seen.sidecars):
        put(api, _service(number, seen.upstreams))
    with _looking(api, seen), ExitStack() as others:
        with ExitStack() as stack:
            began = monotonic()
            sidecars = [
                (stack if number else others).enter_context(_sidecar(number, api, directory))
                for number in range(seen.sidecars)
            ]
            _times(sidecars, lambda sidecar: sidecar.ask("/ready")[0] == 200, PATIENCE)
            seen.ready = monotonic() - began
            sleep(rest)
            seen.at_rest = api.connections()
            seen.stated = max(_status(sidecar)["consul"]["turn_seconds"] for sidecar in sidecars)
            put(api, _instance(0, "second"))
            changed = monotonic()

            def knows(sidecar: Sidecar) -> bool:
                looked = monotonic() - changed
                known = _knows(sidecar, 2)
                seen.unknown = max(seen.unknown, 0.0 if known else looked)
                return known

            seen.changes = _times(sidecars, knows, 2 * seen.stated + 10)
            for sidecar in sidecars:
                for watch in _status(sidecar)["watches"]:
                    seen.failures.update(watch["failures"])
        _alone(api, sidecars[0], seen)


def _alone(api: Api, sidecar: Sidecar, seen: Seen) -> None:
    """Note when the sidecar that is left holds every list, and how soon it hears of a change then."""
    held = _times([sidecar], lambda one: not _status(one)["consul"]["watches_in_turn"], PATIENCE)
    seen.alone = held[0] if held else 0.0
    seen.connections_alone = _status(sidecar)["consul"]["connections"]
    put(api, _instance(0, "third"))
    seen.change_alone = (_times([sidecar], lambda one: _knows(one, 3), 30, poll=0.05) or [0.0])[0]


def _times(
    sidecars: Sequence[Sidecar], true: Callable[[Sidecar], bool], seconds: float, *, poll: float = POLL
) -> list[float]:
    """Return after how many seconds it was true of each sidecar; those of which it never was are left out."""
    began, waiting, found = monotonic(), list(sidecars), []
    while waiting and monotonic() < began + seconds:
        sleep(poll)
        for sidecar in list(waiting):
            sidecar.process.must_live()
            if true(sidecar):
                waiting.remove(sidecar)
                found.append(monotonic() - began)
    return found


@contextmanager
def _looking(api: Api, seen: Seen) -> Iterator[None]:
    """Ask the agent and count its connections all the while."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            seen.most = max(seen.most, api.connections())
            began = monotonic()
            try:
                seen.asked[api.get("/v1/status/leader").status] += 1
            except OSError:
                seen.asked[0] += 1
            seen.longest = max(seen.longest, monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _status(sidecar: Sidecar) -> Any:
    return json.loads(sidecar.ask("/status")[1])


def _knows(sidecar: Sidecar, instances: int) -> bool:
    """Whether it knows so many instances of the first upstream."""
    row = next(row for row in _status(sidecar)["upstreams"] if row["upstream"] == "u0")
    return sum(len(target["endpoints"]) for target in row["targets"]) == instances


def _host(number: int) -> str:
    return f"127.0.2.{number + 1}"


def _instance(number: int, which: str) -> dict[str, Any]:
    name = f"u{number}"
    return {"Name": name, "ID": f"{name}-{which}", "Port": 9, "Connect": {"Native": True}}


def _service(number: int, upstreams: int) -> dict[str, Any]:
    host = _host(number)
    public, *ports = _ports(host, upstreams + 1)
    rows = [
        {"DestinationName": f"u{each}", "LocalBindAddress": host, "LocalBindPort": port}
        for each, port in enumerate(ports)
    ]
    sidecar = {"Address": host, "Port": public, "Proxy": {"Upstreams": rows}, "Checks": []}
    return {"Name": f"web{number}", "Port": 9, "Connect": {"SidecarService": sidecar}}


def _ports(host: str, count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port(host))
    return list(found)


@contextmanager
def _sidecar(number: int, api: Api, directory: Path) -> Iterator[Sidecar]:
    name, host = f"web{number}", _host(number)
    admin = (host, free_port(host))
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", name]
    command += ["-http-addr", api.url.removeprefix("http://"), "-token", api.token]
    command += ["-admin-bind", f"{admin[0]}:{admin[1]}", "-drain-seconds", "0", "-leave-seconds", "0"]
    with process(command, directory / f"{name}.log") as started:
        yield Sidecar(admin=admin, public=("", 0), process=started)


if __name__ == "__main__":
    sys.exit(main())
