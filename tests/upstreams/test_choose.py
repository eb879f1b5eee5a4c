"""The order in which endpoints are tried."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

from upstreams.choose import FailureMemory, candidates
from upstreams.endpoints import Endpoint, EndpointSet, ExpectedIdentity, Status

START = datetime(2031, 5, 17, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class CountingRandom(Random):
    """Counts the numbers drawn from it."""

    calls = 0

    def random(self) -> float:
        self.calls += 1
        return super().random()


def endpoint(name: str, status: Status = Status.PASSING, weight: int = 1) -> Endpoint:
    return Endpoint(
        node="n1",
        service_id=name,
        datacenter="dc1",
        expected=ExpectedIdentity(datacenter="dc1", service="db"),
        service_address="10.0.0.1",
        port=1,
        node_address="",
        tagged={},
        node_tagged={},
        weight=weight,
        status=status,
    )


def order(*endpoints: Endpoint, memory: FailureMemory | None = None, seed: int = 1) -> list[str]:
    chosen = candidates(EndpointSet(endpoints=endpoints), memory or FailureMemory(Clock()), Random(seed))
    return [candidate.service_id for candidate in chosen]


def firsts(*endpoints: Endpoint, rounds: int = 4000) -> Counter[str]:
    rng, memory = Random(3), FailureMemory(Clock())
    group = EndpointSet(endpoints=endpoints)
    return Counter(next(candidates(group, memory, rng)).service_id for _ in range(rounds))


def test_nobody_to_try() -> None:
    assert order() == []


def test_each_endpoint_comes_once() -> None:
    endpoints = [endpoint(str(i)) for i in range(20)]
    assert sorted(order(*endpoints), key=int) == [str(i) for i in range(20)]


def test_passing_come_before_warning_and_critical_do_not_come() -> None:
    a, b = endpoint("a"), endpoint("b")
    warned, bad = endpoint("w", Status.WARNING), endpoint("c", Status.CRITICAL)
    for seed in range(20):
        tried = order(bad, warned, a, b, seed=seed)
        assert set(tried[:2]) == {"a", "b"}
        assert tried[2:] == ["w"]


def test_only_warning_ones_are_better_than_none() -> None:
    assert order(endpoint("w", Status.WARNING)) == ["w"]


def test_load_is_spread_by_weight() -> None:
    counts = firsts(endpoint("heavy", weight=3), endpoint("light", weight=1))
    assert 0.70 < counts["heavy"] / counts.total() < 0.80


def test_the_second_candidate_is_weighted_too() -> None:
    rng, memory = Random(5), FailureMemory(Clock())
    group = EndpointSet(
        endpoints=tuple(endpoint(name, weight=w) for name, w in (("a", 1), ("b", 9), ("c", 3)))
    )
    seconds = Counter(
        tried[1].service_id
        for tried in (list(candidates(group, memory, rng)) for _ in range(6000))
        if tried[0].service_id == "a"
    )
    assert 0.68 < seconds["b"] / seconds.total() < 0.82


def test_weight_zero_is_a_last_resort_within_its_group() -> None:
    zero, one = endpoint("zero", weight=0), endpoint("one")
    assert firsts(zero, one, rounds=500)["one"] == 500
    assert order(zero, one) == ["one", "zero"]
    assert order(zero) == ["zero"]


def test_recent_failures_come_last_and_are_not_dropped() -> None:
    clock = Clock()
    memory = FailureMemory(clock)
    a, b, warned = endpoint("a"), endpoint("b"), endpoint("w", Status.WARNING)
    memory.failed(a)
    assert order(a, b, warned, memory=memory) == ["b", "w", "a"]
    memory.failed(b)
    memory.failed(warned)
    tried = order(a, b, warned, memory=memory)
    assert set(tried[:2]) == {"a", "b"}
    assert tried[2] == "w"


def test_many_failures_do_not_hide_the_one_that_works() -> None:
    memory = FailureMemory(Clock())
    endpoints = [endpoint(str(i), weight=100) for i in range(200)]
    for failed in endpoints[1:]:
        memory.failed(failed)
    for seed in range(5):
        tried = order(*endpoints, memory=memory, seed=seed)
        assert tried[0] == "0"
        assert len(tried) == len(set(tried)) == 200


def test_the_first_draw_looks_at_few_of_many() -> None:
    """Five thousand endpoints must not cost a connection five thousand steps under the interpreter's lock."""
    rng = CountingRandom(1)
    many = EndpointSet(endpoints=tuple(endpoint(str(i)) for i in range(5000)))
    next(candidates(many, FailureMemory(Clock()), rng))
    assert rng.calls == 1


def test_failure_is_forgotten_after_the_hold() -> None:
    clock = Clock()
    memory = FailureMemory(clock, hold=timedelta(seconds=10))
    a = endpoint("a")
    memory.failed(a)
    clock.now += timedelta(seconds=9)
    assert memory.recent() == {a.key}
    clock.now += timedelta(seconds=1)
    assert memory.recent() == frozenset()


def test_success_forgets_the_failure_at_once() -> None:
    memory = FailureMemory(Clock())
    a = endpoint("a")
    memory.failed(a)
    memory.succeeded(a)
    memory.succeeded(endpoint("never-failed"))
    assert memory.recent() == frozenset()


def test_memory_outlives_a_change_of_status() -> None:
    memory = FailureMemory(Clock())
    memory.failed(endpoint("a"))
    assert order(endpoint("a", weight=9), endpoint("b"), memory=memory) == ["b", "a"]


def test_same_seed_same_order() -> None:
    endpoints = [endpoint(str(i), weight=i) for i in range(9)]
    assert order(*endpoints, seed=11) == order(*endpoints, seed=11)
    assert len({tuple(order(*endpoints, seed=seed)) for seed in range(30)}) > 20
