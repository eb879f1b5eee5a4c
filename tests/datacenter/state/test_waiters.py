"""Waiting for topics: only one's own wakes, a few at a time, and none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable

import trio
import trio.testing

from datacenter.state.store import Store
from datacenter.state.waiters import AT_ONCE, Waiters

MANY = 10 * AT_ONCE


class Crowd:
    """Waiters in tasks of their own, and the order in which they woke."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.waiters = Waiters()
        self.woken: list[int] = []
        self.scopes: dict[int, trio.CancelScope] = {}
        self._nursery = nursery

    async def add(self, numbers: Iterable[int], *topics: str) -> None:
        for number in numbers:
            await self._nursery.start(self._wait, number, topics)

    async def _wait(
        self, number: int, topics: tuple[str, ...], *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.CancelScope() as self.scopes[number], self.waiters.registered(topics) as woken:
            task_status.started()
            await woken.wait()
            self.woken.append(number)


async def test_only_the_waiters_of_a_topic_wake_and_each_of_them_once() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.add([1, 2], "a", "b")
        await crowd.add([3], "c")
        crowd.waiters.wake(("a", "b", "a"))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(crowd.woken) == [1, 2]
        nursery.cancel_scope.cancel()


async def test_of_many_a_few_wake_in_one_turn_of_the_loop_and_at_last_all() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.add(range(MANY), "a")
        crowd.waiters.wake(("a",))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()  # the first turn is over; who is in the second one runs in any order
        assert AT_ONCE <= len(crowd.woken) <= 2 * AT_ONCE
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(crowd.woken) == list(range(MANY))


async def test_changes_meanwhile_wake_no_more_at_once() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.add(range(MANY), "a")
        await crowd.add(range(MANY, 2 * MANY), "b")
        for topic in ("a", "b", "b", "b"):
            crowd.waiters.wake((topic,))
        await trio.lowlevel.checkpoint()
        assert len(crowd.woken) <= 2 * AT_ONCE
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(crowd.woken) == list(range(2 * MANY))


async def test_a_waiter_that_is_gone_holds_up_none_behind_it() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(nursery)
        await crowd.add(range(MANY), "a")
        crowd.waiters.wake(("a",))
        gone = set(range(2 * AT_ONCE))  # those that are awake, and the next in the line
        for number in gone:
            crowd.scopes[number].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert set(crowd.woken) >= set(range(MANY)) - gone


async def test_a_store_wakes_by_topic_and_forgets_those_who_wait_no_longer() -> None:
    store, woken = Store(), []

    async def wait(topic: str) -> None:
        await store.changed((topic,), store.index, 1000)
        woken.append(topic)

    async with trio.open_nursery() as nursery:
        for topic in ("one", "other"):
            nursery.start_soon(wait, topic)
        await trio.testing.wait_all_tasks_blocked()
        store.table("one").put("a", {})
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["one"]
        store.wake("other")  # without a change: the wait goes on
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["one"]
        nursery.cancel_scope.cancel()
