"""Whatever failed and whoever is loaded: nobody is tried twice, and the ejected come after all others."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.upstreams.test_choose import Stopwatch, endpoint
from upstreams.choose import Chance, candidates
from upstreams.ejection import EjectionPolicy, FailureMemory
from upstreams.endpoints import Endpoint, EndpointSet, Status

made = st.builds(
    endpoint,
    st.text("abcdefgh", min_size=1, max_size=3),
    st.sampled_from(Status),
    st.integers(0, 100),
    st.sampled_from(["dc1", "dc2"]),
)
groups = st.lists(made, max_size=12, unique_by=lambda e: e.key)
policies = st.builds(EjectionPolicy, max_failures=st.integers(1, 3), slow_start=st.sampled_from([0.0, 10.0]))


@given(
    groups,
    policies,
    st.lists(st.tuples(st.integers(0, 11), st.booleans(), st.floats(0, 30)), max_size=40),
    st.tuples(st.lists(st.integers(0, 50), min_size=12, max_size=12), st.booleans()),
    st.randoms(use_true_random=False),
)
def test_the_ejected_come_last_and_everybody_once(
    group: list[Endpoint],
    policy: EjectionPolicy,
    history: list[tuple[int, bool, float]],
    loads_given: tuple[list[int], bool],
    rng: Random,
) -> None:
    counts, nearest_first = loads_given
    clock = Stopwatch()
    memory = FailureMemory(clock, policy)
    for number, failed, seconds in history:
        if number < len(group):
            (memory.failed if failed else memory.succeeded)(group[number])
        clock.now += seconds
    answer = EndpointSet(endpoints=tuple(group), nearest_first=nearest_first)
    loads = {e.key: count for e, count in zip(group, counts, strict=False)}
    tried = list(candidates(answer, memory, Chance(rng), loads))
    usable = [e for e in group if e.status is not Status.CRITICAL]
    assert sorted(map(str, tried)) == sorted(map(str, usable))
    out = memory.ejected()
    assert [e.key in out for e in tried] == sorted(e.key in out for e in tried)
