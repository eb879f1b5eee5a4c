"""`/v1/config`, beyond what is recorded."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import Answered, Site, Wan, token

WEB = {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}
PROXY = {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": 1}}
RULES = {"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "*", "Action": "deny"}]}


async def wait_for(site: Site, path: str, act: Any) -> tuple[Answered, float]:
    """The answer of a blocking read during which something is done a second later."""
    first = await site.call("GET", path)
    answers: list[Answered] = []

    async def watch() -> None:
        answers.append(await site.call("GET", f"{path}?index={first.index}&wait=60s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(1)
        await act()
    return answers[0], trio.current_time()


async def test_an_entry_that_is_not_there_can_be_waited_for(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1")
    answered, at = await wait_for(
        site, "/v1/config/service-defaults/web", lambda: site.put("/v1/config", WEB)
    )
    assert (answered.body["Protocol"], at) == ("http", 1)


async def test_a_list_wakes_at_a_deletion(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1")
    await site.put("/v1/config", WEB)
    answered, at = await wait_for(
        site, "/v1/config/service-defaults", lambda: site.call("DELETE", "/v1/config/service-defaults/web")
    )
    assert (answered.body, at) == ([], 1)


async def test_a_conditional_write_needs_the_index_last_seen() -> None:
    site = Wan().site("dc1")
    assert await site.put("/v1/config?cas=5", WEB) is False
    assert await site.put("/v1/config?cas=0", WEB) is True
    index = (await site.get("/v1/config/service-defaults/web"))["ModifyIndex"]
    assert await site.put("/v1/config?cas=0", WEB) is False
    assert await site.put(f"/v1/config?cas={index}", {**WEB, "Protocol": "grpc"}) is True
    assert (await site.call("PUT", "/v1/config?cas=x", WEB)).status == 500


async def test_each_kind_has_its_own_rights() -> None:
    tokens = (
        token("web", Policy(service={"web": Access.WRITE})),
        token("operator", Policy(operator=Access.WRITE)),
        token("rules", Policy(intentions={"web": Access.WRITE})),
    )
    site = Wan().site("dc1", default_policy_allows=False, tokens=tokens)
    for entry, writer in ((WEB, "web"), (PROXY, "operator"), (RULES, "rules")):
        for each in ("web", "operator", "rules"):
            answered = await site.call("PUT", "/v1/config", entry, token=each)
            assert answered.status == (200 if each == writer else 403)
    assert await site.get("/v1/config/service-defaults", token="operator") == []
    assert len(await site.get("/v1/config/service-defaults", token="web")) == 1
    assert len(await site.get("/v1/config/proxy-defaults")) == 1
    assert len(await site.get("/v1/config/service-intentions", token="rules")) == 1
    assert (await site.call("DELETE", "/v1/config/proxy-defaults/global", token="web")).status == 403


async def test_unknown_kinds_are_refused_everywhere() -> None:
    site = Wan().site("dc1")
    for method, path, status in (("GET", "nope", 500), ("GET", "nope/x", 500), ("DELETE", "nope/x", 400)):
        answered = await site.call(method, f"/v1/config/{path}")
        assert (answered.status, answered.body) == (status, "invalid config entry kind: nope")


async def test_proxy_defaults_are_deleted_by_any_name() -> None:
    site = Wan().site("dc1")
    await site.put("/v1/config", PROXY)
    assert (await site.call("DELETE", "/v1/config/proxy-defaults/other")).body == {}
    assert await site.get("/v1/config/proxy-defaults") == []
