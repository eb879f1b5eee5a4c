"""Blocking reads: what wakes them, what does not, and when they end by themselves."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import wait_all_tasks_blocked

from datacenter.http.context import QueryMeta, Reply, Request, Route
from datacenter.http.frame import Frame, RawReply
from datacenter.state.errors import ApiError
from tests.datacenter.routed import answering, blocking_site, site, things
from tests.datacenter.world import Site, World, settings


async def test_a_read_without_an_index_does_not_block(autojump_clock: object) -> None:
    for query in ("", "?index=0&wait=60s", "?wait=60s"):
        assert await blocking_site().ok("GET", f"/v1/things{query}") == []
    assert trio.current_time() == 0


async def test_a_blocking_read_ends_with_a_change(autojump_clock: object) -> None:
    served = blocking_site()
    replies: list[RawReply] = []

    async def read() -> None:
        replies.append(await served.call("GET", "/v1/things?index=1&wait=60s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        served.dc.store.table("others").put("x", {})
        await wait_all_tasks_blocked()
        assert replies == []
        served.dc.store.table("things").put("a", {})
    assert (replies[0].body, replies[0].headers["X-Consul-Index"]) == (b'["a"]', "4")
    assert trio.current_time() == 0


async def test_a_blocking_read_ends_with_its_wait(autojump_clock: object) -> None:
    reply = await blocking_site().call("GET", "/v1/things?index=1&wait=10s")
    assert (reply.status, reply.headers["X-Consul-Index"]) == (200, "1")
    assert 10 <= trio.current_time() <= 10 * 17 / 16


async def test_an_index_ahead_of_ours_waits(autojump_clock: object) -> None:
    served = blocking_site()

    async def change() -> None:
        for number in range(5):
            await trio.sleep(1)
            served.dc.store.table("things").put(str(number), {})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        reply = await served.call("GET", "/v1/things?index=99999&wait=10s")
    assert trio.current_time() >= 10
    assert reply.headers["X-Consul-Index"] == "7"


async def test_a_change_during_the_handler_is_not_missed(autojump_clock: object) -> None:
    made = World().add(settings("dc1"))
    table = made.dc.store.table("things")
    calls = 0

    async def slow(request: Request) -> Reply:
        nonlocal calls
        calls += 1
        keys, index = [row.key for row in table.rows()], table.index
        if calls == 1:
            table.put("a", {})  # as another request would while this one is at work
        return Reply(value=keys, topics=("things",), index=index, meta=QueryMeta.INDEX)

    served = Site(dc=made.dc, frame=Frame(made.dc, [Route("GET", "/v1/a", slow)]))
    assert await served.ok("GET", "/v1/a?index=1&wait=60s") == ["a"]
    assert trio.current_time() == 0


async def test_an_error_ends_a_blocking_read_at_once(autojump_clock: object) -> None:
    made = World().add(settings("dc1"))
    table = made.dc.store.table("things")

    async def gone(request: Request) -> Reply:
        if table.get("a") is not None:
            raise ApiError(404, "gone")
        return Reply(value=1, topics=("things",), content_hash="h")

    served = Site(dc=made.dc, frame=Frame(made.dc, [Route("GET", "/v1/a", gone)]))

    async def change() -> None:
        await trio.sleep(1)
        table.put("a", {})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        reply = await served.call("GET", "/v1/a?hash=h&wait=60s")
    assert (reply.status, trio.current_time()) == (404, 1)


async def test_a_hash_that_differs_does_not_wait(autojump_clock: object) -> None:
    served = site(Route("GET", "/v1/a", answering(Reply(value=1, topics=("t",), content_hash="abc"))))
    reply = await served.call("GET", "/v1/a?hash=other&wait=60s")
    assert reply.headers["X-Consul-Contenthash"] == "abc"
    assert "X-Consul-Index" not in reply.headers
    assert trio.current_time() == 0


async def test_a_blocking_read_blocks_elsewhere(autojump_clock: object) -> None:
    world = World()
    for name in ("dc1", "dc2"):
        made = world.add(settings(name))
        made.frame = Frame(made.dc, [Route("GET", "/v1/things", things(made.dc))])
    index = (await world.dc1.call("GET", "/v1/things?dc=dc2")).headers["X-Consul-Index"]

    async def change() -> None:
        await trio.sleep(3)
        world.dc1.dc.store.table("things").put("here", {})
        world.dc2.dc.store.table("things").put("there", {})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        assert await world.dc1.ok("GET", f"/v1/things?dc=dc2&index={index}&wait=60s") == ["there"]
    assert trio.current_time() == 3


async def test_a_final_reply_never_blocks(autojump_clock: object) -> None:
    final = replace(Reply(value=1, topics=("t",), meta=QueryMeta.PLAIN), final=True)
    assert await site(Route("GET", "/v1/a", answering(final))).ok("GET", "/v1/a?index=5&wait=60s") == 1
    assert trio.current_time() == 0
