"""The line of callers: sources take turns, each has a share, and each has a name for a person."""

from __future__ import annotations

import pytest

from agent.net.line import Line, source_of, source_text

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def called(line: Line[int]) -> list[int]:
    return [caller for _, caller in line.rest()]


async def test_sources_take_turns_each_in_the_order_of_arrival() -> None:
    line = Line[int]()
    for number, source in enumerate((A, A, A, B, B, C)):
        assert line.join(source, number)
    assert called(line) == [0, 3, 5, 1, 4, 2]
    assert not line


async def test_whoever_is_skipped_is_next_again() -> None:
    line = Line[int]()
    line.join(A, 1)
    line.join(B, 2)
    assert list(line.sources()) == [A, B]
    assert line.call(B) == 2
    assert list(line.sources()) == [A]
    assert len(line) == 1


async def test_a_line_is_bounded_and_a_source_has_a_share_of_it() -> None:
    line = Line[int](4)
    assert [line.join(A, number) for number in range(3)] == [True, True, False]
    assert [line.join(B, number) for number in range(3)] == [True, True, False]
    assert line.full
    whole = Line[int](4, fair=False)
    assert [whole.join(A, number) for number in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:1:ffff::2", 2, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:2::1", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 1, 0, 2), True),
        ("", None, True),
    ],
)
def test_a_source_is_an_address_or_a_network_of_ipv6(one: object, other: object, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8:0:1::1", 1, 0, 0), "2001:db8:0:1::/64"),
        ("", "a unix socket"),
    ],
)
def test_a_source_is_named_for_a_person(address: object, name: str) -> None:
    assert source_text(source_of(address)) == name
