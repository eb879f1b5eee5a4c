"""`python -m tests.weather`: every weather in turn under load, and the table that docs/bench/weather.md has.

python -m tests.weather --seconds 20 --per-second 200
CONSUL_BIN=/path/to/consul python -m tests.weather --consul "client agent" "server killed"

Words choose the weathers whose names have one of them; without words it plays all.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import trio

from tests.weather.mesh import Restart, stormy
from tests.weather.story import HEAD, Told, played, restarted
from tests.weather.weathers import STORMS, Storm

Named = TypeVar("Named", Storm, Restart)


def main() -> int:
    """Play them all; fail if a call has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.weather", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of calm before each storm, and of storm")
    parser.add_argument("--per-second", type=float, default=200.0, help="new connections")
    parser.add_argument("names", nargs="*", help="parts of the names of weathers; all by default")
    parser.add_argument("--consul", action="store_true", help="beside a real Consul")
    args = parser.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="sidecar-weather-") as name:
        faults = trio.run(_all, Path(name), args)
    print(f"\n{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    return 1 if faults else 0


async def _all(directory: Path, args: argparse.Namespace) -> int:
    pace = {"seconds": args.seconds, "per_second": args.per_second}
    async with stormy(directory, "consul" if args.consul else "embedded") as whole:
        faults = 0
        for storm in _chosen(chain.from_iterable(STORMS.values()), args.names):
            faults += _say(await played(whole, storm, **pace))
        for restart in _chosen(whole.restarts, args.names):
            faults += _say(await restarted(whole, restart, **pace))
    return faults


def _chosen(weathers: Iterable[Named], names: Sequence[str]) -> list[Named]:
    return [one for one in weathers if not names or any(name in one.name for name in names)]


def _say(told: Told) -> int:
    print(told.row, flush=True)
    if told.load.faults:
        print(told.load.faults[:5], told.endings, file=sys.stderr, flush=True)
    return len(told.load.faults)


if __name__ == "__main__":
    sys.exit(main())
