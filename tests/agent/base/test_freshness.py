"""How long a confirmation is good, in virtual time."""

from __future__ import annotations

import math
from datetime import timedelta

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.base.freshness import LOOK_SECONDS, Confirmation, Freshness
from agent.base.latest import Latest
from tests.support.agent_parts import START, virtual


def confirmed_now() -> Confirmation:
    return Confirmation(virtual(), trio.current_time())


async def test_what_is_confirmed_is_good_to_its_greatest_age_and_no_longer(autojump_clock: MockClock) -> None:
    cell = Latest(confirmed_now())
    freshness = Freshness(cell, 100.0, virtual)
    await trio.sleep(90)
    cell.publish(confirmed_now())
    good_until = virtual() + timedelta(seconds=100)
    await trio.sleep(99.9)
    assert (freshness.too_old_since(), freshness.good_until) == (None, good_until)
    await trio.sleep(0.2)
    assert freshness.too_old_since() == good_until
    cell.publish(confirmed_now())
    assert freshness.too_old_since() is None


async def test_without_a_greatest_age_what_is_known_is_good_for_ever(autojump_clock: MockClock) -> None:
    freshness = Freshness(Latest(), math.inf, virtual)
    with trio.move_on_after(10**6):
        await freshness.becomes_too_old()
    assert (freshness.too_old_since(), freshness.good_until) == (None, None)


async def test_what_was_never_confirmed_is_too_old(autojump_clock: MockClock) -> None:
    freshness = Freshness(Latest(), 100.0, virtual)
    assert freshness.too_old_since() == virtual()


async def test_a_wall_clock_that_jumps_ahead_is_noticed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """After a suspend, say: the clock that sleeps with us has not moved."""
    now, seen = [START], []
    freshness = Freshness(Latest(Confirmation(START, trio.current_time())), 3600.0, lambda: now[0])

    async def watch() -> None:
        seen.append(await freshness.becomes_too_old())

    nursery.start_soon(watch)
    await trio.sleep(10)
    assert (freshness.too_old_since(), seen) == (None, [])
    now[0] += timedelta(hours=2)
    assert freshness.too_old_since() == START + timedelta(hours=1), "at once for whoever asks"
    await trio.sleep(LOOK_SECONDS + 0.1)
    assert seen == [START + timedelta(hours=1)]


async def test_a_confirmation_that_is_too_old_itself_makes_nothing_good(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A frame that a worker finds after it has hung itself."""
    cell: Latest[Confirmation] = Latest()
    freshness, again = Freshness(cell, 100.0, virtual), trio.Event()

    async def watch() -> None:
        await freshness.is_good_again()
        again.set()

    nursery.start_soon(watch)
    late = Confirmation(virtual() - timedelta(seconds=101), trio.current_time() - 101)
    for confirmation, is_good in ((late, False), (confirmed_now(), True)):
        cell.publish(confirmation)
        await wait_all_tasks_blocked()
        assert again.is_set() is is_good
