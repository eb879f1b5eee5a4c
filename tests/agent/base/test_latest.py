"""One writer, many readers, only the newest value."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agent.base.latest import Latest, any_newer


async def test_a_reader_waits_for_the_first_value(autojump_clock: trio.testing.MockClock) -> None:
    cell: Latest[str] = Latest()
    assert (cell.value, cell.version) == (None, 0)
    seen: list[str] = []

    async def read() -> None:
        seen.append(await cell.first())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        cell.publish("one")
    assert seen == ["one"]


async def test_a_slow_reader_sees_only_the_newest_value() -> None:
    cell = Latest(1)
    for number in (2, 3, 4):
        cell.publish(number)
    assert await cell.newer(1) == (4, 4)


async def test_every_waiting_reader_is_woken_once_per_publication(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cell: Latest[int] = Latest()
    seen: list[tuple[str, int]] = []

    async def follow(name: str) -> None:
        version = 0
        for _ in range(2):
            value, version = await cell.newer(version)
            seen.append((name, value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, "a")
        nursery.start_soon(follow, "b")
        for number in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            cell.publish(number)
    assert sorted(seen) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


async def test_newer_waits_although_there_is_a_value(autojump_clock: trio.testing.MockClock) -> None:
    cell = Latest("old")
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(1):
            await cell.newer(1)


def test_the_value_does_not_show_in_the_repr() -> None:
    assert "secret" not in repr(Latest("secret"))


async def test_any_newer_waits_for_the_first_of_several(autojump_clock: trio.testing.MockClock) -> None:
    one, other = Latest(1), Latest(1)
    with trio.move_on_after(5) as waited:
        await any_newer([(one, one.version), (other, other.version)])
    assert waited.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(any_newer, [(one, one.version), (other, other.version)])
        await trio.testing.wait_all_tasks_blocked()
        other.publish(2)
    await any_newer([(one, one.version), (other, 1)])
