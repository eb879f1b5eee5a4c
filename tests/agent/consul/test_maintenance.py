"""The maintenance of a service, asked for, begun and ended."""

from __future__ import annotations

import pytest
import trio

from agent.consul.maintenance import maintenance_reason, set_maintenance
from tests.support.fake_consul import FakeConsul


@pytest.mark.parametrize("reason", [None, "works"])
async def test_a_maintenance_begins_and_ends_by_its_id_in_one_segment(
    nursery: trio.Nursery, reason: str | None
) -> None:
    scripted = FakeConsul()
    path = "/v1/agent/service/maintenance/a%2Fb"
    scripted.answer(path, text="")
    await set_maintenance(scripted.client(nursery), "a/b", reason)
    expected = {"enable": "false"} if reason is None else {"enable": "true", "reason": "works"}
    assert [(asked.method, asked.query) for asked in scripted.questions(path)] == [("PUT", expected)]


async def test_the_reason_of_a_maintenance(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    scripted.answer("/v1/agent/checks", {"_service_maintenance:a": {"Notes": "works", "Other": 1}})
    scripted.answer("/v1/agent/checks", {})
    consul = scripted.client(nursery)
    assert [await maintenance_reason(consul, "a") for _ in range(2)] == ["works", None]
    assert scripted.asked[0].query == {"filter": 'CheckID == "_service_maintenance:a"'}


async def test_an_id_that_no_filter_can_hold_is_looked_up_in_the_whole_list(nursery: trio.Nursery) -> None:
    scripted = FakeConsul()
    odd = '`a"'
    scripted.answer("/v1/agent/checks", {f"_service_maintenance:{odd}": {"Notes": "works"}})
    assert await maintenance_reason(scripted.client(nursery), odd) == "works"
    assert scripted.asked[0].query == {}
