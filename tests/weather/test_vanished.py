"""The agent beside an instance restarts: its node leaves the catalog, and no call fails.

The embedded datacenter is one node, so that here the instance is taken away and put back; real client agents
are restarted in test_weather.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rotation.load import load
from tests.rotation.mesh import until
from tests.weather.mesh import Stormy, answers, passing, register, stormy

DEREGISTER = "/v1/agent/service/deregister"
PER_SECOND = 20.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def taken_away(whole: Stormy) -> None:
    for service_id in ("db-sidecar-proxy", "db"):
        assert await whole.site.ask("PUT", f"{DEREGISTER}/{service_id}") is not None


async def known_as(whole: Stormy, status: str) -> bool:
    return await whole.endpoints() == {"db-sidecar-proxy": status}


async def test_no_call_fails_while_an_instance_vanishes_and_comes_back(tmp_path: Path) -> None:
    async with stormy(tmp_path) as whole:
        async with load([whole.web.upstream], per_second=PER_SECOND, lasting=2) as counted:
            await taken_away(whole)
            await until(lambda: known_as(whole, "vanished"), "web uses what has vanished")
            answered = counted.answered
            await until(lambda: _more(counted.answered, answered), "calls are answered")
            await register(whole.db, whole.app)
            await until(lambda: passing(whole), "db is passing again")
        assert counted.faults == []
        log = whole.web.log.read_text()
        assert "upstream.vanished" in log
        assert "upstream.returned" in log


async def _more(now: int, before: int) -> bool:
    return now > before + 5


async def test_maintenance_is_obeyed_at_once(tmp_path: Path) -> None:
    async with stormy(tmp_path) as whole:
        maintenance = "/v1/agent/service/maintenance/db-sidecar-proxy?enable=true"
        assert await whole.site.ask("PUT", maintenance) is not None
        await until(lambda: known_as(whole, "critical"), "web knows of it")
        assert not await answers(whole.web.upstream)
        await taken_away(whole)
        await until(lambda: _none(whole), "db is gone")
        assert not await answers(whole.web.upstream)


async def _none(whole: Stormy) -> bool:
    return await whole.endpoints() == {}
