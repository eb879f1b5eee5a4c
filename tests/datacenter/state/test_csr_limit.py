"""How fast certificates are signed, and what happens beyond it. Virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from datacenter.state.csr_limit import CsrLimit
from datacenter.state.errors import ApiError
from tests.datacenter.sites import Site, Wan, running

LEAF = "/v1/agent/connect/ca/leaf"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"


async def limited(per_second: float) -> Site:
    site = Wan().site("dc1")
    site.ca.start()
    body = {"Provider": "consul", "Config": {"CSRMaxPerSecond": per_second}}
    await site.put(CONFIGURATION, body)
    return site


async def test_as_many_at_once_as_in_a_second_and_then_in_turn(autojump_clock: MockClock) -> None:
    limit = CsrLimit()
    assert [limit.take(3) for _ in range(4)] == [True, True, True, False]
    await trio.sleep(0.4)
    assert [limit.take(3) for _ in range(2)] == [True, False]
    await trio.sleep(100)
    assert [limit.take(3) for _ in range(4)] == [True, True, True, False]


async def test_who_would_wait_too_long_is_refused_at_once(autojump_clock: MockClock) -> None:
    limit = CsrLimit()
    await limit.wait(4)
    for _ in range(5):
        await limit.wait(4)
    assert 0.4 < trio.current_time() < 0.6
    slow = CsrLimit()
    await slow.wait(1)
    with pytest.raises(ApiError) as refused:
        await slow.wait(1)
    assert (refused.value.status, refused.value.text) == (429, "Rate limit reached, try again later")


async def test_without_a_limit(autojump_clock: MockClock) -> None:
    site = await limited(0)
    for number in range(200):
        await site.get(f"{LEAF}/s{number}")


async def test_a_first_leaf_is_429(autojump_clock: MockClock) -> None:
    site = await limited(1)
    await site.get(f"{LEAF}/one")
    refused = await site.call("GET", f"{LEAF}/two")
    assert (refused.status, refused.body) == (429, "Rate limit reached, try again later")
    await trio.sleep(1)
    await site.get(f"{LEAF}/two")


async def test_a_leaf_that_is_only_to_be_replaced_stays_and_is_replaced_later(
    autojump_clock: MockClock,
) -> None:
    site = await limited(1)
    before = {}
    for name in ("a", "b", "c"):
        before[name] = await site.call("GET", f"{LEAF}/{name}")
        await trio.sleep(2)
    await site.put(ROTATE)
    after = [await site.call("GET", f"{LEAF}/{name}") for name in before]
    changed = [new.body != old.body for new, old in zip(after, before.values(), strict=True)]
    assert changed == [True, False, False]
    woken: dict[str, float] = {}

    async def watch(name: str) -> None:
        answer = await site.call("GET", f"{LEAF}/{name}?index={before[name].index}&wait=120s")
        assert answer.body != before[name].body
        woken[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        for name in ("b", "c"):
            nursery.start_soon(watch, name)
    assert max(woken.values()) < 70


async def test_asked_for_another_leaf_beyond_the_limit(autojump_clock: MockClock) -> None:
    site = await limited(1)
    first = await site.get(f"{LEAF}/web")
    assert (await site.call("GET", f"{LEAF}/web?reissue=true")).status == 429
    await trio.sleep(1)
    second = await site.get(f"{LEAF}/web?reissue=true")
    assert second["SerialNumber"] != first["SerialNumber"]
    assert (await site.get(f"{LEAF}/web"))["SerialNumber"] == second["SerialNumber"]


async def test_two_who_wait_for_the_first_leaf_of_one_name_get_one(autojump_clock: MockClock) -> None:
    site = await limited(2)
    await site.get(f"{LEAF}/x")
    await site.get(f"{LEAF}/y")
    serials = set()

    async def ask() -> None:
        serials.add((await site.get(f"{LEAF}/web"))["SerialNumber"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert len(serials) == 1


async def test_a_secondary_that_is_refused_says_so_and_asks_again(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2, dc3 = wan.site("dc1"), wan.site("dc2"), wan.site("dc3")
    dc1.ca.start()
    await dc1.put(CONFIGURATION, {"Provider": "consul", "Config": {"CSRMaxPerSecond": 1}})
    async with running(dc1, dc2, dc3):
        assert sorted((dc2.standing[0], dc3.standing[0])) == ["joined", "refused"]
        late = dc2 if dc2.standing[0] == "refused" else dc3
        assert "Rate limit reached, try again later" in late.standing[1]
        await trio.sleep(10)
        assert late.standing == ("joined", "")


@pytest.mark.parametrize("value", [-1, "many", {}])
async def test_a_limit_that_is_none(autojump_clock: MockClock, value: object) -> None:
    site = Wan().site("dc1")
    site.ca.start()
    body = {"Provider": "consul", "Config": {"CSRMaxPerSecond": value}}
    refused = await site.call("PUT", CONFIGURATION, body)
    assert (refused.status, "CSRMaxPerSecond" in refused.body) == (500, True)
