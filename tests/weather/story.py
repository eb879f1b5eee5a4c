"""One storm under load: what failed, how often the agents were asked, when a change was seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from tests.contract.federation import free_port
from tests.rotation.load import Load, load
from tests.rotation.mesh import Site, until
from tests.weather.front import fair
from tests.weather.mesh import Restart, Stormy
from tests.weather.weathers import Storm

EXACT = "/v1/connect/intentions/exact?destination=db&source="
REGISTER = "/v1/agent/service/register"
FLOOR, CEILING = 0.25, 60.0  # seconds: the shortest pause after a failure, and the longest
PATIENCE = 30.0  # seconds that a busy machine may take on top of a bound

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one storm has shown. Requests are those of both sidecars; `seen` are seconds after its end."""

    storm: str
    seconds: float
    load: Load
    at_rest: float  # requests a second
    requests: int
    busiest: int  # requests of a second
    watches: int
    rule_seen: float
    endpoint_seen: float
    endings: dict[str, int]  # of connections of web's app that no instance was found for

    @property
    def row(self) -> str:
        """A row of the table in docs/bench/weather.md."""
        cells = (
            self.storm,
            f"{self.seconds:.0f} s",
            f"{self.load.made:,}",
            f"{self.load.rate:.0f}",
            f"{len(self.load.failed)}",
            f"{self.at_rest:.2f}",
            f"{self.requests / self.seconds:.1f}",
            f"{self.busiest}",
            f"{self.rule_seen:.1f} s",
            f"{self.endpoint_seen:.1f} s",
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| weather | for | calls | calls/s | failed | requests/s at rest | in the storm | most in a second "
    "| denial seen after | instance seen after |\n|---|---|---|---|---|---|---|---|---|---|"
)


def most_requests(watches: int, seconds: float) -> float:
    """Return the most requests of these watches in a storm: pauses double from 0.25 s, and one is under way.

    Beside the watches, each sidecar compares its replica every 5 s and asks again after a failed dial.
    """
    each = 1 + math.log2(1 + seconds / FLOOR) + max(0.0, seconds - 2 * CEILING) / (CEILING / 2)
    return watches * each + 2 * 3 * (1 + seconds / 5)


def bound(seconds: float) -> float:
    """Return how long after a storm of that many seconds each watch has asked: the pause it is in."""
    return min(CEILING, 2 * seconds + 1)


async def played(whole: Stormy, storm: Storm, *, seconds: float, per_second: float) -> Told:
    """Let a storm pass under load."""

    async def pass_by() -> None:
        for front in whole.fronts:
            front.turn(storm.weather, deaf=storm.deaf, breaking=storm.breaking)
        await trio.sleep(seconds / 2)

    async def clear() -> None:
        await trio.sleep(seconds / 2)
        for front in whole.fronts:
            front.turn(fair, breaking=storm.endless)

    return await told(whole, storm.name, pass_by, clear, seconds=seconds, per_second=per_second)


async def restarted(whole: Stormy, restart: Restart, *, seconds: float, per_second: float) -> Told:
    """Let an agent be away for that many seconds."""

    async def away() -> None:
        await restart.run(seconds, whole.site)

    pace = {"seconds": seconds, "per_second": per_second}
    return await told(whole, restart.name, away, trio.lowlevel.checkpoint, **pace)


async def told(
    whole: Stormy,
    name: str,
    begin: Callable[[], Awaitable[None]],
    clear: Callable[[], Awaitable[None]],
    *,
    seconds: float,
    per_second: float,
) -> Told:
    """Run load all the while; make a change between `begin` and `clear`, and wait until it is seen after."""
    number, before = next(_numbers), await _unserved(whole)
    late, source = f"late-{number}", f"source-{number}"
    async with load([whole.web.upstream], per_second=per_second, lasting=2) as counted:
        calm = trio.current_time()
        await trio.sleep(seconds)
        watches, began = await whole.watches(), trio.current_time()
        await begin()
        await change(whole.site, late, source)
        await clear()
        ended = trio.current_time()
        seen: dict[str, float] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_see, seen, "rule", lambda: _has_rule(whole, source), seconds)
            nursery.start_soon(_see, seen, "endpoint", lambda: _has_endpoint(whole, late), seconds)
            nursery.start_soon(_see, seen, "instance that passes", whole.is_offered, seconds)
    made = Told(
        storm=name,
        seconds=ended - began,
        load=counted,
        at_rest=_requests(whole, calm, began) / (began - calm),
        requests=_requests(whole, began, ended),
        busiest=sum(front.busiest_second(began, ended) for front in whole.fronts),
        watches=watches,
        rule_seen=seen["rule"],
        endpoint_seen=seen["endpoint"],
        endings={reason: n - before.get(reason, 0) for reason, n in (await _unserved(whole)).items()},
    )
    await _undo(whole, late, source)
    return made


async def _see(
    seen: dict[str, float], what: str, holds: Callable[[], Awaitable[bool]], seconds: float
) -> None:
    seen[what] = await until(holds, f"the {what} is seen", bound(seconds) + PATIENCE)


async def change(site: Site, late: str, source: str) -> None:
    """Write a denial for db, and register an instance of it whose check has said nothing.

    Either is asked for until it is taken: a server that was elected a moment ago refuses intentions until it
    has replayed its log (docs/consul-api.md#errors).
    """
    denial = f"{EXACT}{source}"
    await until(lambda: _taken(site, denial, {"Action": "deny"}), "the denial is written")
    check = {"Name": "pulse", "TTL": "1h"}
    sidecar: dict[str, Any] = {"Address": "127.0.0.1", "Port": free_port(), "Checks": [check]}
    service = {"ID": late, "Name": "db", "Port": 9, "Connect": {"SidecarService": sidecar}}
    await until(lambda: _taken(site, REGISTER, service), "the instance is registered")


async def _taken(site: Site, path: str, body: Mapping[str, object]) -> bool:
    return await site.ask("PUT", path, body) is not None


async def _undo(whole: Stormy, late: str, source: str) -> None:
    assert await whole.site.ask("DELETE", f"{EXACT}{source}") is not None
    assert await whole.site.ask("PUT", f"/v1/agent/service/deregister/{late}") is not None


async def _has_rule(whole: Stormy, source: str) -> bool:
    return any(rule.startswith(f"{source} ") for rule in await whole.rules())


async def _has_endpoint(whole: Stormy, late: str) -> bool:
    return f"{late}-sidecar-proxy" in await whole.endpoints()


def _requests(whole: Stormy, begin: float, end: float) -> int:
    return sum(begin <= one.at < end for front in whole.fronts for one in front.asked)


async def _unserved(whole: Stormy) -> dict[str, int]:
    """Return how connections of web's app have ended so far that were not served."""
    endings = (await whole.web.endings())["outbound"]
    return {reason: count for reason, count in endings.items() if reason not in ("closed", "plain_reset")}
