"""What a control-plane storm does to the tail of our latency.

Under a constant load, the root is rotated, thousands of instances of another upstream are replaced again and
again, and the intentions rewritten. Watches are answered, parsed and proven by the process that moves the
bytes: if any of that took long, the tail would show it. The two datacenters work hard meanwhile, on the same
cores, so the calm figure beside it is taken with as many instances in the catalog.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.load import CONNECTIONS, SHARE, requests_per_second
from tests.bench.paced import Tail, paced
from tests.bench.pairs import MANY, SERVER, Pair
from tests.bench.rig import BenchFailed, api, ask, ask_text

ADMIN = f"http://{SERVER.replace('.21', '.11')}:19000"
_PAUSE = 0.2  # seconds between two blows
REPLACED = 100  # instances with each


def storm(pair: Pair, instances: int, seconds: int) -> list[str]:
    """Lines for the report."""
    fill(instances)
    _until_known(instances)
    rate = requests_per_second(pair, CONNECTIONS, seconds) * SHARE
    calm = paced(pair, rate, seconds)
    with _raging(instances) as blows:
        raging = paced(pair, rate, seconds)
    told = (
        f"Control-plane storm: {CONNECTIONS} connections at {rate:,.0f} requests/s, {instances} instances of "
        f"another upstream. During it {blows['instances']} of these were replaced, {blows['intentions']} "
        f"intentions rewritten and the root rotated {blows['roots']} times, in {seconds} s."
    )
    return [
        "",
        told,
        "",
        "| | median, µs | 99th percentile, µs | worst, µs | requests/s kept |",
        "|---|---|---|---|---|",
        _row("calm", calm),
        _row("storm", raging),
    ]


def _row(name: str, tail: Tail) -> str:
    figures = (tail.median_us, tail.p99_us, tail.worst_us, tail.per_second)
    return f"| {name} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |"


def fill(instances: int, service: str = MANY, *, generation: int = 0, first: int = 0) -> None:
    """Register instances in dc2's catalog; a later generation replaces them."""
    for number in range(first, first + instances):
        node = f"{service}-{number}"
        body = {
            "Node": node, "Address": f"127.9.{number // 250}.{number % 250 + 1}",
            "Service": {
                "Kind": "connect-proxy", "ID": f"{node}-proxy", "Service": f"{service}-sidecar-proxy",
                "Port": 21000 + generation % 1000, "Meta": {"generation": str(generation)},
                "Proxy": {"DestinationServiceName": service},
            },
        }  # fmt: skip
        ask("PUT", f"{api('dc2')}/v1/catalog/register", body)


def _until_known(instances: int) -> None:
    row = re.compile(rf"^sidecar_upstream_endpoints{{.*{MANY}.*}} ([0-9.]+)$", re.MULTILINE)
    for _ in range(300):
        if sum(map(float, row.findall(ask_text(f"{ADMIN}/metrics")))) >= instances:
            return
        time.sleep(0.1)
    raise BenchFailed(f"the sidecar does not know {instances} instances")


@contextmanager
def _raging(instances: int) -> Iterator[dict[str, int]]:
    blows = {"instances": 0, "intentions": 0, "roots": 0}
    over = threading.Event()
    thread = threading.Thread(target=_rage, args=(instances, blows, over))
    thread.start()
    try:
        yield blows
    finally:
        over.set()
        thread.join()


def _rage(instances: int, blows: dict[str, int], over: threading.Event) -> None:
    for turn in itertools.count(1):
        if over.wait(_PAUSE):
            return
        first = turn * REPLACED % max(1, instances - REPLACED)
        fill(REPLACED, generation=turn, first=first)
        blows["instances"] += REPLACED
        rule = f"{api('dc1')}/v1/connect/intentions/exact?source=storm-{turn % 7}&destination=db"
        ask("PUT", rule, {"Action": "deny" if turn % 2 else "allow"})
        blows["intentions"] += 1
        if turn % 10 == 1:
            ask("PUT", f"{api('dc1')}/v1/connect/ca/rotate")
            blows["roots"] += 1
