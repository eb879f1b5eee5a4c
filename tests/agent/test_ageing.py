"""Intentions that Consul has not confirmed for too long, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import trio
from trio.testing import MockClock

from agent.ageing import LOOK_SECONDS, age
from agent.base.latest import Latest
from agent.policy.intentions import Intentions, parse_match
from tests.support.agent_parts import START, virtual

ALLOW = parse_match(None, "db", default_allow=True)


class Told:
    """Who hears of it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def intentions_too_old(self, since: datetime, /) -> None:
        self.events.append(f"too old since {since.isoformat()}")

    def intentions_current(self) -> None:
        self.events.append("current")


def good_for(seconds: float, intentions: Intentions = ALLOW) -> Intentions:
    return replace(intentions, good_until=virtual() + timedelta(seconds=seconds))


def too_old(cell: Latest[Intentions]) -> bool:
    assert cell.value is not None
    return cell.value.too_old


async def test_unless_they_are_confirmed_they_are_too_old_at_the_moment_they_say(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cell, told = Latest(good_for(100)), Told()
    nursery.start_soon(age, cell, virtual, told)
    await trio.sleep(90)
    cell.publish(good_for(100))
    await trio.sleep(99.9)
    assert not too_old(cell)
    await trio.sleep(0.2)
    assert too_old(cell)
    await trio.sleep(1000)
    assert len(told.events) == 1
    cell.publish(good_for(100))
    await trio.sleep(0.1)
    assert not too_old(cell)
    await trio.sleep(100)
    assert too_old(cell)
    assert [event.split()[0] for event in told.events] == ["too", "current", "too"]


async def test_those_that_say_nothing_are_good_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cell, told = Latest(ALLOW), Told()
    nursery.start_soon(age, cell, virtual, told)
    await trio.sleep(10**6)
    assert (cell.value, cell.version, told.events) == (ALLOW, 1, [])


async def test_a_wall_clock_that_jumps_ahead_is_noticed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """After a suspend, say: the clock that sleeps with us has not moved."""
    now = [START]
    cell = Latest(replace(ALLOW, good_until=START + timedelta(hours=1)))
    nursery.start_soon(age, cell, lambda: now[0])
    await trio.sleep(10)
    assert not too_old(cell)
    now[0] += timedelta(hours=2)
    await trio.sleep(LOOK_SECONDS + 0.1)
    assert too_old(cell)


async def test_what_arrives_too_old_is_only_told_of_by_whoever_found_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A worker is handed a list that its control process has marked already."""
    cell, told = Latest(replace(good_for(-5), too_old=True)), Told()
    nursery.start_soon(age, cell, virtual, told)
    await trio.sleep(10)
    assert (cell.version, told.events) == (1, [])
