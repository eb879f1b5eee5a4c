"""A reader is told the newest of everything, what must be known first before the rest."""

from __future__ import annotations

import trio
import trio.testing

from agent.base.latest import Latest
from agent.workers.messages import Report, Withdrawn, decode
from agent.workers.publisher import Publisher, SendOrder, Subscriber


def told(reader: Subscriber) -> list[object]:
    """Everything there is to tell, as numbers; a withdrawal as its key."""
    heard: list[object] = []
    while (item := reader.next()) is not None:
        order = decode(item[1])
        assert isinstance(order, Report | Withdrawn)
        heard.append(order.number if isinstance(order, Report) else order.key)
    return heard


def number(value: int) -> Report:
    return Report(number=value)


async def test_what_has_no_value_yet_is_not_told(nursery: trio.Nursery) -> None:
    publisher, cell = Publisher().start(nursery), Latest[int]()
    publisher.post("a", SendOrder.POLICY, cell, number)
    reader = Subscriber(publisher)
    assert told(reader) == []
    cell.publish(5)
    assert told(reader) == [5]
    assert told(reader) == []


async def test_ranks_are_the_order_and_hold_in_the_midst_of_telling(nursery: trio.Nursery) -> None:
    publisher = Publisher().start(nursery)
    low, high = Latest(1), Latest(10)
    publisher.post("sockets", SendOrder.SOCKETS, high, number)
    publisher.post("policy", SendOrder.POLICY, low, number)
    reader = Subscriber(publisher)
    assert reader.next() is not None
    low.publish(2)  # while the first was being sent
    assert told(reader) == [2, 10]


async def test_only_the_newest_counts_and_each_reader_has_its_own_place(nursery: trio.Nursery) -> None:
    publisher, cell = Publisher().start(nursery), Latest(1)
    publisher.post("a", SendOrder.POLICY, cell, number)
    early = Subscriber(publisher)
    assert told(early) == [1]
    cell.publish(2)
    cell.publish(3)
    assert told(early) == [3]
    assert told(Subscriber(publisher)) == [3]


async def test_a_withdrawal_is_told_to_those_who_knew_and_before_what_comes_in_its_place(
    nursery: trio.Nursery,
) -> None:
    publisher = Publisher().start(nursery)
    gone = Withdrawn(key="gone")
    publisher.post("a", SendOrder.SOCKETS, Latest(1), number, withdrawal=gone)
    knew = Subscriber(publisher)
    assert told(knew) == [1]
    publisher.post("a", SendOrder.SOCKETS, Latest(2), number, withdrawal=gone)
    assert told(knew) == ["gone", 2]
    assert told(Subscriber(publisher)) == [2]
    publisher.withdraw("a")
    publisher.withdraw("a")
    assert told(knew) == ["gone"]


async def test_news_wake_the_reader_until_it_is_closed(nursery: trio.Nursery) -> None:
    publisher, cell = Publisher().start(nursery), Latest[int]()
    reader, woken = Subscriber(publisher), 0

    def news() -> None:
        nonlocal woken
        woken += 1

    reader.news = news
    publisher.post("a", SendOrder.POLICY, cell, number)
    await trio.testing.wait_all_tasks_blocked()
    before = woken
    cell.publish(1)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == before + 1
    reader.close()
    cell.publish(2)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == before + 1


async def test_a_value_is_written_once_for_all(nursery: trio.Nursery) -> None:
    publisher, written = Publisher().start(nursery), []

    def note(value: int) -> Report:
        written.append(value)
        return number(value)

    publisher.post("a", SendOrder.POLICY, Latest(1), note)
    assert [told(Subscriber(publisher)) for _ in range(3)] == [[1]] * 3
    assert written == [1]
