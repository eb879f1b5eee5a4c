"""Carrying a plan out, close before open, reaches the new upstreams; then nothing is left to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upstreams.plan import Plan, plan
from upstreams.spec import (
    Bind,
    LocalBind,
    QueryDestination,
    ServiceDestination,
    SocketBind,
    Upstream,
    bind_key,
    first_of_each_bind,
)

binds = st.one_of(
    st.builds(LocalBind, st.sampled_from(["127.0.0.1", "::1"]), st.integers(1, 4)),
    st.builds(SocketBind, st.sampled_from(["/run/a", "/run/b"]), st.sampled_from([None, 0o600, 0o660])),
)
destinations = st.one_of(
    st.builds(ServiceDestination, st.sampled_from("abc"), st.sampled_from([None, "dc2"])),
    st.builds(QueryDestination, st.sampled_from("abc")),
)
upstreams = st.builds(
    Upstream, destination=destinations, bind=binds, connect_timeout=st.sampled_from([1.0, 5.0])
)
states = st.lists(upstreams, max_size=8).map(lambda made: first_of_each_bind(made)[0])


def carry_out(state: dict[Bind, Upstream], todo: Plan) -> dict[Bind, Upstream]:
    """What a lifecycle does with listeners: it fails on a bind that is taken or was never there."""
    after = dict(state)
    for upstream in todo.close:
        assert after.pop(upstream.bind) == upstream
    for upstream in todo.open:
        assert bind_key(upstream.bind) not in set(map(bind_key, after))
        after[upstream.bind] = upstream
    for upstream in todo.retarget:
        assert after[upstream.bind] != upstream
        after[upstream.bind] = upstream
    for upstream in todo.keep:
        assert after[upstream.bind] == upstream
    return after


@given(states, states)
def test_plan_reaches_the_new_state_and_then_rests(
    old: tuple[Upstream, ...], new: tuple[Upstream, ...]
) -> None:
    before = {upstream.bind: upstream for upstream in old}
    after = carry_out(before, plan(old, new))
    assert after == {upstream.bind: upstream for upstream in new}
    assert plan(tuple(after.values()), new).is_empty


@given(states, states)
def test_each_upstream_has_one_fate(old: tuple[Upstream, ...], new: tuple[Upstream, ...]) -> None:
    todo = plan(old, new)
    assert sorted(map(repr, (*todo.open, *todo.keep, *todo.retarget))) == sorted(map(repr, new))
    assert len(todo.close) + len(todo.keep) + len(todo.retarget) == len(old)


@given(states)
def test_nothing_is_touched_without_a_change(state: tuple[Upstream, ...]) -> None:
    assert plan(state, state).is_empty
