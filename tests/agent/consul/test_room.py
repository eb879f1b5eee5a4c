"""How many connections this host has at its agent, and what a sidecar makes of it."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from agent.config.parsers import ConsulAddress
from agent.consul import room
from agent.consul.budget import Budget, Rank
from agent.consul.room import (
    CROWDED,
    FIRST_REST,
    LATER,
    QUICK,
    SOON,
    SPARSE,
    STALE,
    Look,
    Room,
    connections,
    counting,
    sized,
)
from tests.agent.consul.test_budget import Agent, watching

EVERYTHING = 1 << 40  # bytes: other work on this machine may have opened tens of thousands of sockets


@dataclass
class Host:
    """A host of one sidecar and `others` connections of other processes."""

    budget: Budget = field(default_factory=lambda: Budget(3, 16))
    others: int = 0
    unknown: bool = False
    takes: float = 0.0  # seconds
    cost: float = 0.0  # seconds of CPU
    looks: int = 0
    kept: list[int] = field(default_factory=list)

    async def count(self) -> Look:
        self.looks += 1
        await trio.sleep(self.takes)
        host = None if self.unknown else self.others + self.budget.connections
        return Look(host=host, cost=self.cost)

    async def keep(self, connections: int) -> None:
        self.kept.append(connections)
        await trio.lowlevel.checkpoint()

    def watch(self, lists: int) -> None:
        for number in range(lists):
            self.budget.place(Rank.ENDPOINTS, watching(Agent(), f"list {number}")).join()

    def room(self) -> Room:
        return Room(self.budget, self.keep, self.count, Random(1))


def followed(nursery: trio.Nursery, lists: int) -> Host:
    """Return the host of a sidecar with so many lists, whose room is kept fitted from now on."""
    host = Host()
    host.watch(lists)
    nursery.start_soon(host.room().follow)
    return host


async def test_a_sidecar_alone_holds_every_list_after_four_looks(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = followed(nursery, lists=13)
    await trio.sleep((SOON + 2 * QUICK) * 1.3 + 0.1)
    assert (host.budget.connections, host.budget.in_turn) == (14, 0)
    assert host.kept[-1] == 14


async def test_what_is_wanted_later_is_taken_soon(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    host = Host()
    nursery.start_soon(host.room().follow)
    await trio.sleep(100)
    assert host.budget.connections == 3
    host.watch(6)
    await trio.sleep(2 * SOON * 1.3)
    assert host.budget.connections == 7


async def test_a_sidecar_that_has_just_its_least_takes_more_after_some_seconds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Who is given a connection asks at once: those that have asked a moment ago need not."""
    host = followed(nursery, lists=13)
    await trio.sleep(SOON * 0.7 - 0.1)
    assert host.budget.connections == 3


async def test_connections_are_given_back_while_the_host_is_crowded(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = followed(nursery, lists=13)
    await trio.sleep(20)
    host.others = 150
    await trio.sleep(SOON * 1.3 + 0.1)
    assert (host.budget.connections, host.budget.held) == (3, 2)
    host.others = 0
    await trio.sleep(3 * SOON * 1.3 + LATER * 1.3)
    assert host.budget.connections == 14


@pytest.mark.parametrize("after", [20, 25, 30, 35])
async def test_who_has_more_than_its_least_hears_of_a_crowd_within_four_seconds(
    nursery: trio.Nursery, autojump_clock: MockClock, after: int
) -> None:
    host = followed(nursery, lists=13)
    await trio.sleep(after)
    assert host.budget.connections == 14
    host.others = 150
    await trio.sleep(SOON * 1.3 + 0.1)
    assert host.budget.connections == 3


async def test_an_unknown_number_is_a_crowd(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    host = Host(unknown=True)
    host.watch(13)
    nursery.start_soon(host.room().follow)
    await trio.sleep(100)
    assert host.budget.connections == 3
    assert host.looks <= 100 / LATER * 2


async def test_after_a_refusal_a_sidecar_has_its_least_for_longer_each_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = Host()
    host.watch(13)
    one = host.room()
    nursery.start_soon(one.follow)
    for rest in (FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST):
        await trio.sleep(SOON * 1.3 * 2 + LATER * 1.3)
        assert host.budget.connections == 14
        one.refused()
        one.refused()  # one more within the same rest makes it no longer
        assert host.budget.connections == 3
        await trio.sleep(rest - 0.1)
        assert host.budget.connections == 3


async def test_a_budget_that_may_not_grow_is_followed_to_its_least(
    autojump_clock: MockClock,
) -> None:
    for budget in (Budget(3, 3), Budget(16, 3), Budget(0, 16)):
        host = Host(budget)
        await host.room().follow()
        assert (host.looks, budget.connections) == (int(budget.least > 0), budget.least)


async def test_by_a_look_that_took_long_connections_are_given_back_and_none_taken(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = Host(takes=STALE + 0.1)
    host.watch(13)
    nursery.start_soon(host.room().follow)
    await trio.sleep(100)
    assert host.budget.connections == 1
    host.budget.resize(14)
    host.others = CROWDED
    await trio.sleep(LATER + 2 * STALE)
    assert host.budget.connections == 3


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost")],
)
async def test_the_kernel_is_asked_who_is_connected(
    family: socket.AddressFamily, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_READ", EVERYTHING)
    with ExitStack() as stack:
        bind = "::1" if family is socket.AF_INET6 else "127.0.0.1"
        server = stack.enter_context(socket.create_server((bind, 0), family=family))
        port = server.getsockname()[1]
        count = counting(ConsulAddress(host=host, port=port))
        assert (await count()).host == 0
        for number in range(1, 4):
            stack.enter_context(socket.create_connection((bind, port)))
            stack.enter_context(server.accept()[0])
            assert (await count()).host == number
        with socket.socket(socket.AF_INET6) as mapped:
            if family is socket.AF_INET:
                mapped.connect((f"::ffff:{bind}", port))
                assert (await count()).host == 4


async def test_a_connection_that_the_agent_has_not_closed_yet_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Consul counts it as long: until the wait of a question is over that was given up."""
    monkeypatch.setattr(room, "MOST_READ", EVERYTHING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        count = counting(ConsulAddress(host="127.0.0.1", port=server.getsockname()[1]))
        ours = socket.create_connection(server.getsockname())
        with server.accept()[0] as theirs:
            ours.close()
            assert theirs.recv(1) == b""
            assert (await count()).host == 1
        assert (await count()).host == 0


async def test_a_unix_socket_and_a_name_without_address_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*_: object, **__: object) -> list[object]:
        raise socket.gaierror

    assert (await counting(ConsulAddress(socket="/run/consul.sock"))()).host is None
    monkeypatch.setattr(trio.socket, "getaddrinfo", nothing)
    assert (await counting(ConsulAddress(host="consul.example", port=8500))()).host is None


LINE = b"%4d: 0100007F:%04X 0100007F:2134 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20\n"


async def test_long_tables_are_read_whole_and_too_long_ones_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tcp"
    lines = [LINE % (number, number) for number in range(3000)]
    other = [line.replace(b" 01 ", b" 06 ") for line in lines[:50]]
    table.write_bytes(b"  sl  local_address rem_address   st\n" + b"".join(lines + other))
    monkeypatch.setattr(room, "_READ", 1000)
    count = partial(connections, ["127.0.0.1"], 0x2134)
    assert (await count([table, tmp_path / "none"])).host == 3000
    assert (await count([tmp_path])).host is None  # a directory cannot be read
    monkeypatch.setattr(room, "MOST_READ", 100_000)
    assert (await count([table])).host is None


async def test_what_is_dear_to_count_is_counted_more_rarely(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = Host(cost=0.05)
    host.watch(13)
    nursery.start_soon(host.room().follow)
    await trio.sleep(1000)
    assert host.budget.connections == 14
    assert host.looks <= 1000 / (0.05 * room.SPARING * 0.7)


async def test_on_a_busy_machine_where_a_look_waits_for_the_cpu_none_is_left_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    host = Host(takes=0.5)
    host.watch(13)
    nursery.start_soon(host.room().follow)
    await trio.sleep(1000)
    assert host.looks >= 1000 / (SOON * 1.3 + 0.5) - 1


@pytest.mark.parametrize(
    ("now_", "wanted", "host", "then"),
    [
        (3, 14, 3, 8),  # alone: three looks are enough
        (8, 14, 8, 13),
        (13, 14, 13, 14),
        (3, 14, 108, 4),  # the last ones below the bound: each other one
        (3, 14, 109, 3),
        (9, 14, 139, 9),  # what is there is kept
        (9, 14, 140, 3),
        (14, 5, 14, 5),  # what is not needed is given back
        (3, 2, 3, 3),
        (16, 16, 500, 3),
    ],
)
def test_more_connections_are_taken_while_the_host_has_few(
    now_: int, wanted: int, host: int, then: int
) -> None:
    assert sized(now_, least=3, wanted=wanted, host=host) == then


@pytest.mark.parametrize("sidecars", [*range(1, 60), 60])
def test_sidecars_that_look_at_the_same_moment_leave_room(sidecars: int) -> None:
    """Whatever their number: they take no more than there is, and from one size on only their least."""
    sizes, rng = [3] * sidecars, Random(sidecars)
    for _ in range(100):
        host = sum(sizes)
        sizes = [sized(size, least=3, wanted=16, host=host, chance=rng.random()) for size in sizes]
        assert sum(sizes) <= max(CROWDED, 3 * sidecars)
    if 3 * sidecars >= SPARSE:
        assert sizes == [3] * sidecars
    if 16 * sidecars <= SPARSE:
        assert sizes == [16] * sidecars
