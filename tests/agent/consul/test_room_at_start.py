"""How a sidecar that starts takes its least of connections, beside few others and in a crowd."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agent.consul.budget import Budget
from agent.consul.room import FULL, LATER, OTHERS_SECONDS, SPARSE, risen
from tests.agent.consul.test_room import Host


def starting(others: int, least: int = 3) -> Host:
    return Host(Budget(least, least), others=others)


async def test_a_sidecar_that_starts_has_its_least_after_one_look_at_a_quiet_host(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for host in (starting(40), starting(40, least=16)):
        await host.room().follow()
        assert (host.budget.connections, host.looks) == (host.budget.least, 1)


async def test_a_sidecar_that_starts_beside_many_takes_one_connection_a_look(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = starting(SPARSE)
    await host.room().follow()
    assert host.kept == [2, 3]


async def test_a_sidecar_that_starts_in_a_crowd_lets_the_others_give_back_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = starting(150)
    began = trio.current_time()
    await host.room().follow()
    assert trio.current_time() >= began + OTHERS_SECONDS


async def test_a_sidecar_that_starts_on_a_full_host_stays_as_it_is_until_there_is_room(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = starting(FULL)
    room = host.room()
    nursery.start_soon(room.follow)
    await trio.sleep(1000)
    assert (host.budget.connections, await room.has_room()) == (1, False)
    host.others = 100
    await trio.sleep(2 * LATER)
    assert (host.budget.connections, await room.has_room()) == (3, True)


async def test_what_is_not_counted_has_its_least_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = starting(500)
    host.unknown = True
    room = host.room()
    await room.follow()
    assert (host.budget.connections, host.looks, await room.has_room()) == (3, 1, True)


async def test_a_refusal_gives_a_sidecar_that_starts_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = starting(150)
    room = host.room()
    nursery.start_soon(room.follow)
    await trio.sleep(OTHERS_SECONDS - 1)
    room.refused()
    assert host.budget.connections == 1
    await trio.sleep(OTHERS_SECONDS - 1)
    assert host.budget.connections == 1


@pytest.mark.parametrize(
    ("now_", "host", "waited", "chance", "then"),
    [
        (1, 59, 0.0, 0.9, 3),
        (1, 60, 0.0, 0.9, 2),
        (2, 139, 0.0, 0.9, 3),
        (2, 140, 9.9, 0.0, 2),  # the others have not looked yet
        (2, 170, 10.0, 0.4, 3),
        (2, 170, 10.0, 0.6, 2),  # all that look at one moment take no more than there is
        (2, 190, 99.0, 0.0, 2),
    ],
)
def test_a_sidecar_that_starts_takes_what_all_may_take(
    now_: int, host: int, waited: float, chance: float, then: int
) -> None:
    assert risen(now_, least=3, host=host, waited=waited, chance=chance) == then
