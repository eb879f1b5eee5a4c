"""When an endpoint is ejected, for how long, and how it returns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.upstreams.test_choose import Stopwatch, endpoint
from upstreams.ejection import EjectionPolicy, FailureMemory

A, B = endpoint("a"), endpoint("b")
POLICY = EjectionPolicy(interval=10, max_failures=3, ejection_time=10, longest=60, slow_start=10)


def fail(memory: FailureMemory, times: int) -> list[bool]:
    return [memory.failed(A) for _ in range(times)]


def test_so_many_failures_in_a_row_eject() -> None:
    memory = FailureMemory(Stopwatch(), POLICY)
    assert fail(memory, 3) == [False, False, True]
    assert memory.share(A) == 0
    assert memory.share(B) == 1
    assert memory.ejected() == {A.key: 10}


def test_by_default_one_is_enough() -> None:
    assert FailureMemory(Stopwatch()).failed(A)


def test_failures_far_apart_do_not_add_up() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, POLICY)
    for _ in range(9):
        assert not memory.failed(A)
        clock.now += 10.1


def test_a_success_in_between_starts_the_count_again() -> None:
    memory = FailureMemory(Stopwatch(), POLICY)
    fail(memory, 2)
    memory.succeeded(A)
    assert fail(memory, 3) == [False, False, True]


def test_it_returns_by_itself_and_slowly() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, POLICY)
    fail(memory, 3)
    shares = []
    for _ in range(5):
        clock.now += 5
        shares.append(memory.share(A))
    assert shares == pytest.approx([0, 0.1, 0.5, 1, 1])
    assert memory.ejected() == {}


def test_while_it_returns_one_failure_is_enough_and_each_ejection_is_longer() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, POLICY)
    fail(memory, 3)
    lengths = []
    for _ in range(4):
        lengths.append(memory.ejected()[A.key])
        clock.now += memory.ejected()[A.key]
        assert memory.failed(A)
    assert lengths == [10, 20, 40, 60]


def test_failures_while_ejected_change_nothing() -> None:
    memory = FailureMemory(Stopwatch(), POLICY)
    fail(memory, 3)
    before = memory.ejected()
    assert fail(memory, 50) == [False] * 50
    assert memory.ejected() == before


def test_a_last_resort_that_serves_returns_at_once() -> None:
    memory = FailureMemory(Stopwatch(), POLICY)
    fail(memory, 3)
    memory.succeeded(A)
    assert memory.ejected() == {}
    assert memory.share(A) == pytest.approx(0.1)


def test_what_a_last_resort_has_served_counts_as_no_failure() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, replace(POLICY, slow_start=2))
    fail(memory, 3)
    memory.succeeded(A)
    clock.now += 3  # through its slow start, and not long after the last failure
    assert fail(memory, 3) == [False, False, True]


def test_after_the_slow_start_the_past_is_forgotten() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, POLICY)
    fail(memory, 3)
    clock.now += 21
    memory.succeeded(A)
    assert fail(memory, 3) == [False, False, True]
    assert memory.ejected()[A.key] == 10


def test_success_of_the_unknown_is_nothing() -> None:
    memory = FailureMemory(Stopwatch(), POLICY)
    memory.succeeded(A)
    assert memory.share(A) == 1


def test_endpoints_nobody_hears_of_any_more_are_forgotten() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, POLICY)
    for number in range(100):
        memory.failed(endpoint(str(number)))
        clock.now += 30
    assert len(memory._records) < 5
