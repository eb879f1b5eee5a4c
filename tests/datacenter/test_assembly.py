"""A datacenter put together: every module is in, fixed paths win, and it ends when told."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from datacenter.assembly import assembled
from datacenter.http.frame import RawRequest
from datacenter.state.store import Store
from tests.datacenter.world import settings


async def test_it_lives_as_long_as_the_block() -> None:
    store = Store()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with assembled(settings("dc1"), store, clock=lambda: now, rng=random.Random(0)) as alive:
        for path in (
            "/v1/agent/services",
            "/v1/agent/checks",
            "/v1/catalog/datacenters",
            "/v1/health/state/any",
            "/v1/coordinate/nodes",
            "/v1/query",
            "/v1/agent/connect/ca/roots",
            "/v1/connect/intentions",
            "/v1/config/service-defaults",
            "/v1/status/leader",
        ):
            reply = await alive.frame.handle(RawRequest(method="GET", path=path))
            assert reply.status == 200, (path, reply.body)
    assert store.table("nodes").get("dc1-node") is not None


async def test_fixed_paths_win_over_names() -> None:
    store = Store()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with assembled(settings("dc1"), store, clock=lambda: now, rng=random.Random(0)) as alive:
        for method, path in (
            ("GET", "/v1/agent/service/register"),
            ("POST", "/v1/query/x/execute"),
            ("POST", "/v1/query/x/explain"),
        ):
            assert (await alive.frame.handle(RawRequest(method=method, path=path))).status == 405
