"""/v1/agent/metrics, in Consul's form."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from tests.datacenter.world import DB, MANAGEMENT, Site, world_a, world_b

PATH = "/v1/agent/metrics"


def counts(answer: Any) -> dict[tuple[str, str], int]:
    """Calls by method and path."""
    return {(s["Labels"]["method"], s["Labels"]["path"]): s["Count"] for s in answer["Samples"]}


def held(answer: Any) -> int:
    (gauge,) = (gauge for gauge in answer["Gauges"] if gauge["Name"] == "consul.rpc.queries_blocking")
    return int(gauge["Value"])


async def read(site: Site, path: str) -> None:
    await site.call("GET", path)


async def test_every_call_is_counted_by_its_endpoint(autojump_clock: object) -> None:
    dc1 = world_b().dc1
    for name in ("db", "web", "db"):
        await dc1.call("GET", f"/v1/health/connect/{name}")
    await dc1.call("GET", "/v1/query/none/execute")
    await dc1.call("POST", "/v1/health/connect/db")  # 405: no endpoint
    answer = await dc1.ok("GET", PATH)
    assert counts(answer) == {("GET", "v1_health_connect_"): 3, ("GET", "v1_query_"): 1}
    assert answer["Timestamp"] == "2026-11-22 20:00:00 +0000 UTC"
    assert (answer["Points"], answer["Counters"]) == ([], [])
    first = answer["Samples"][0]
    assert first["Name"] == "consul.api.http"
    assert {"Sum", "Min", "Max", "Mean", "Stddev"} < first.keys()


async def test_a_held_read_shows_until_it_is_answered(autojump_clock: object) -> None:
    dc1 = world_b().dc1
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(read, dc1, "/v1/health/connect/db?index=1000&wait=60s")
        await wait_all_tasks_blocked()
        answer = await dc1.ok("GET", PATH)
        assert (held(answer), counts(answer)) == (2, {})
    answer = await dc1.ok("GET", PATH)
    assert held(answer) == 0
    assert counts(answer)[("GET", "v1_health_connect_")] == 2


async def test_it_takes_the_right_to_read_the_agent() -> None:
    dc1 = world_a().dc1
    assert (await dc1.call("GET", PATH, headers={"x-consul-token": DB})).status == 403
    await dc1.ok("GET", PATH, token=MANAGEMENT)


async def test_prometheus_is_answered_as_by_a_consul_that_does_not_keep_it() -> None:
    reply = await world_b().dc1.call("GET", f"{PATH}?format=prometheus")
    assert reply.status == 415
    assert reply.body == b"Prometheus is not enabled since its retention time is not positive"


async def test_lines_of_the_log_that_were_lost_are_told(autojump_clock: object) -> None:
    answer = await world_b().dc1.ok("GET", PATH)
    (gauge,) = (g for g in answer["Gauges"] if g["Name"] == "sidecar.datacenter.log_lines_lost")
    assert gauge["Value"] == 0
