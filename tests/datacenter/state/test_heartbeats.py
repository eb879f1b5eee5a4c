"""Words about TTL checks wake who waits for them."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from datacenter.state.heartbeats import Heartbeats


async def test_a_beat_is_of_one_check() -> None:
    beats, heard = Heartbeats(), []

    async def listen(check: str) -> None:
        await beats.next(check)
        heard.append(check)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "a")
        nursery.start_soon(listen, "b")
        await wait_all_tasks_blocked()
        beats.beat("a")
        await wait_all_tasks_blocked()
        assert heard == ["a"]
        nursery.cancel_scope.cancel()


async def test_an_earlier_beat_is_over(autojump_clock: object) -> None:
    beats = Heartbeats()
    beats.beat("a")
    with trio.move_on_after(1) as scope:
        await beats.next("a")
    assert scope.cancelled_caught
