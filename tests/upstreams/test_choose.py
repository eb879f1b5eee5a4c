"""The order in which endpoints are tried."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime
from heapq import heappop, heappush
from random import Random

import pytest

from upstreams.choose import Chance, any_in_favour, candidates, in_favour, last_resorts
from upstreams.ejection import EjectionPolicy, FailureMemory
from upstreams.endpoints import Endpoint, EndpointKey, EndpointSet, ExpectedIdentity, Status

START = datetime(2031, 5, 17, tzinfo=UTC)


class Stopwatch:
    """Seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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


def endpoint(
    name: str, status: Status = Status.PASSING, weight: int = 1, datacenter: str = "dc1"
) -> Endpoint:
    return Endpoint(
        node="n1",
        service_id=name,
        datacenter=datacenter,
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
    group = EndpointSet(endpoints=endpoints)
    chosen = candidates(group, memory or FailureMemory(Stopwatch()), Chance(Random(seed)))
    return [candidate.service_id for candidate in chosen]


def firsts(*endpoints: Endpoint, rounds: int = 4000) -> Counter[str]:
    chance, memory = Chance(Random(3)), FailureMemory(Stopwatch())
    group = EndpointSet(endpoints=endpoints)
    return Counter(next(candidates(group, memory, chance)).service_id for _ in range(rounds))


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
    chance, memory = Chance(Random(5)), FailureMemory(Stopwatch())
    group = EndpointSet(
        endpoints=tuple(endpoint(name, weight=w) for name, w in (("a", 1), ("b", 9), ("c", 3)))
    )
    seconds = Counter(
        tried[1].service_id
        for tried in (list(candidates(group, memory, chance)) for _ in range(6000))
        if tried[0].service_id == "a"
    )
    assert 0.68 < seconds["b"] / seconds.total() < 0.82


def test_weight_zero_is_a_last_resort_within_its_group() -> None:
    zero, one = endpoint("zero", weight=0), endpoint("one")
    assert firsts(zero, one, rounds=500)["one"] == 500
    assert order(zero, one) == ["one", "zero"]
    assert order(zero) == ["zero"]


def test_ejected_ones_come_last_and_are_not_dropped() -> None:
    clock = Stopwatch()
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
    memory = FailureMemory(Stopwatch())
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
    chance = Chance(rng)
    many = EndpointSet(endpoints=tuple(endpoint(str(i)) for i in range(5000)))
    next(candidates(many, FailureMemory(Stopwatch()), chance))
    assert rng.calls == 1


def test_memory_outlives_a_change_of_status() -> None:
    memory = FailureMemory(Stopwatch())
    memory.failed(endpoint("a"))
    assert order(endpoint("a", weight=9), endpoint("b"), memory=memory) == ["b", "a"]


def test_same_seed_same_order() -> None:
    endpoints = [endpoint(str(i), weight=i) for i in range(9)]
    assert order(*endpoints, seed=11) == order(*endpoints, seed=11)
    assert len({tuple(order(*endpoints, seed=seed)) for seed in range(30)}) > 20


def test_what_is_ejected_is_apart() -> None:
    memory = FailureMemory(Stopwatch())
    a, b = endpoint("a"), endpoint("b")
    group = EndpointSet(endpoints=(a, b))
    memory.failed(a)
    assert list(in_favour(group, memory, Chance(Random(1)), {})) == [b]
    assert list(last_resorts(group, memory, Chance(Random(1)))) == [a]
    assert any_in_favour(group, memory)
    memory.failed(b)
    assert list(in_favour(group, memory, Chance(Random(1)), {})) == []
    assert not any_in_favour(group, memory)


def test_nothing_is_in_favour_of_an_empty_answer() -> None:
    empty = EndpointSet(endpoints=(endpoint("c", Status.CRITICAL),))
    memory = FailureMemory(Stopwatch())
    assert list(in_favour(empty, memory, Chance(Random(1)), {})) == []
    assert not any_in_favour(empty, memory)


def test_sorted_by_distance_the_nearest_has_everything_until_it_fails() -> None:
    answer = tuple(endpoint(name, weight=weight) for name, weight in (("a", 1), ("b", 9), ("c", 99)))
    group = EndpointSet(endpoints=answer, nearest_first=True)
    memory = FailureMemory(Stopwatch())
    for seed in range(20):
        tried = candidates(group, memory, Chance(Random(seed)), {answer[0].key: 1000})
        assert [e.service_id for e in tried] == ["a", "b", "c"]
    memory.failed(answer[0])
    assert [e.service_id for e in candidates(group, memory, Chance(Random(1)))] == ["b", "c", "a"]


WEIGHTS = (1, 1, 2, 4, 8)


@pytest.mark.parametrize("seed", range(5))
def test_held_connections_are_spread_by_weight_within_three_percent(seed: int) -> None:
    endpoints = tuple(endpoint(str(i), weight=weight) for i, weight in enumerate(WEIGHTS))
    group, memory, chance = EndpointSet(endpoints=endpoints), FailureMemory(Stopwatch()), Chance(Random(seed))
    loads: Counter[EndpointKey] = Counter()
    for _ in range(10_000):
        loads[next(candidates(group, memory, chance, loads)).key] += 1
    for chosen in endpoints:
        assert loads[chosen.key] == pytest.approx(10_000 * chosen.weight / sum(WEIGHTS), rel=0.03)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at_once", [1, 2, 8, 16])
def test_a_few_at_a_time_are_spread_by_weight_within_three_percent(seed: int, at_once: int) -> None:
    endpoints = tuple(endpoint(str(i), weight=weight) for i, weight in enumerate(WEIGHTS))
    group, memory, chance = EndpointSet(endpoints=endpoints), FailureMemory(Stopwatch()), Chance(Random(seed))
    loads: Counter[EndpointKey] = Counter()
    given: Counter[EndpointKey] = Counter()
    lengths, leaving = Random(seed), list[tuple[float, int, EndpointKey]]()
    for moment in range(10_000):
        while len(leaving) >= at_once:
            loads[heappop(leaving)[-1]] -= 1
        key = next(candidates(group, memory, chance, loads)).key
        loads[key] += 1
        given[key] += 1
        heappush(leaving, (moment + at_once * lengths.uniform(0.5, 1.5), moment, key))
    for chosen in endpoints:
        assert given[chosen.key] == pytest.approx(10_000 * chosen.weight / sum(WEIGHTS), rel=0.03)


def test_shares_hold_from_the_beginning() -> None:
    endpoints = tuple(endpoint(str(i), weight=weight) for i, weight in enumerate(WEIGHTS))
    for rounds in (16, 160, 1600):
        counts = firsts(*endpoints, rounds=rounds)
        for chosen in endpoints:
            assert abs(counts[chosen.service_id] - rounds * chosen.weight / sum(WEIGHTS)) < 4


def test_a_caller_with_a_rhythm_finds_all_of_them() -> None:
    """Every second connection may be a heavy one: they are not all for the same endpoints."""
    group = EndpointSet(endpoints=tuple(endpoint(str(i)) for i in range(4)))
    chance, memory = Chance(Random(2)), FailureMemory(Stopwatch())
    for rhythm in range(2, 12):
        drawn = [next(candidates(group, memory, chance)).service_id for _ in range(400 * rhythm)]
        counts = Counter(drawn[::rhythm])
        assert min(counts[str(i)] for i in range(4)) > 80


def test_what_an_ejected_one_misses_goes_to_the_others_by_weight() -> None:
    memory = FailureMemory(Stopwatch())
    endpoints = [endpoint(str(i), weight=weight) for i, weight in enumerate((1, 2, 1, 12))]
    memory.failed(endpoints[3])
    group, chance = EndpointSet(endpoints=tuple(endpoints)), Chance(Random(9))
    counts = Counter(next(candidates(group, memory, chance)).service_id for _ in range(8000))
    assert counts["3"] == 0
    assert counts["0"] == pytest.approx(2000, rel=0.08)
    assert counts["1"] == pytest.approx(4000, rel=0.08)


def test_an_endpoint_that_holds_its_connections_longer_gets_fewer() -> None:
    endpoints = tuple(endpoint(str(i)) for i in range(5))
    group, memory, chance = EndpointSet(endpoints=endpoints), FailureMemory(Stopwatch()), Chance(Random(4))
    loads: Counter[EndpointKey] = Counter()
    given: Counter[str] = Counter()
    leaving: deque[list[EndpointKey]] = deque([] for _ in range(400))
    for _ in range(10_000):
        for key in leaving.popleft():
            loads[key] -= 1
        leaving.append([])
        chosen = next(candidates(group, memory, chance, loads))
        loads[chosen.key] += 1
        given[chosen.service_id] += 1
        leaving[300 if chosen.service_id == "0" else 30].append(chosen.key)
    others = [given[str(i)] for i in range(1, 5)]
    assert given["0"] < 0.4 * min(others)
    assert max(others) < 1.1 * min(others)


def test_who_returns_gets_less_at_first_and_all_of_it_later() -> None:
    clock = Stopwatch()
    memory = FailureMemory(clock, EjectionPolicy(ejection_time=10, slow_start=10))
    a, b, chance = endpoint("a"), endpoint("b"), Chance(Random(6))
    group = EndpointSet(endpoints=(a, b))

    def share_of_a() -> float:
        return sum(next(candidates(group, memory, chance)) is a for _ in range(4000)) / 4000

    memory.failed(a)
    shares = []
    for seconds in (9.9, 0.2, 5.0, 5.0):
        clock.now += seconds
        shares.append(share_of_a())
    out, back, half, whole = shares
    assert out == 0
    assert 0.05 < back < 0.15  # a tenth against one
    assert 0.28 < half < 0.40  # a half against one
    assert 0.46 < whole < 0.54


def test_without_load_two_draws_do_not_favour_the_heavy() -> None:
    loads = {endpoint("elsewhere").key: 7}
    chance, memory = Chance(Random(8)), FailureMemory(Stopwatch())
    group = EndpointSet(endpoints=(endpoint("heavy", weight=3), endpoint("light")))
    firsts = Counter(next(candidates(group, memory, chance, loads)).service_id for _ in range(4000))
    assert 0.72 < firsts["heavy"] / 4000 < 0.78
