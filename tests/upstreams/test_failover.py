"""Which target is active: away at once, back after the hold time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.upstreams.test_choose import Stopwatch
from upstreams.failover import Failover, TargetHealth

L, D, U = TargetHealth.LIVE, TargetHealth.DEAD, TargetHealth.UNKNOWN


class Story:
    """Three targets and a clock."""

    def __init__(self, hold: float = 30) -> None:
        self.clock = Stopwatch()
        self.failover = Failover(3, hold, self.clock)

    def after(self, seconds: float, *lives: TargetHealth) -> int:
        self.clock.now += seconds
        self.failover.judge(lives)
        return self.failover.active


def test_the_preferred_one_is_active() -> None:
    assert Story().after(0, L, L, L) == 0


def test_what_is_not_known_yet_is_not_left() -> None:
    story = Story()
    assert story.after(0, U, L, L) == 0
    assert story.after(1, L, L, L) == 0


def test_a_dead_one_is_left_at_once_for_the_first_that_lives() -> None:
    story = Story()
    assert story.after(0, L, L, L) == 0
    assert story.after(1, D, D, L) == 2
    assert story.after(1, D, D, L) == 2


def test_when_nothing_lives_the_active_one_stays() -> None:
    story = Story()
    assert story.after(0, D, D, U) == 0
    assert story.after(0, D, L, D) == 1
    assert story.after(0, D, D, D) == 1


def test_back_after_the_hold_time() -> None:
    story = Story(hold=30)
    story.after(0, L, L, L)
    assert story.after(1, D, L, L) == 1
    assert story.after(10, L, L, L) == 1
    assert story.after(29.9, L, L, L) == 1
    assert story.after(0.1, L, L, L) == 0


def test_the_hold_time_starts_again_with_every_break() -> None:
    story = Story(hold=30)
    story.after(0, D, L, L)
    for _ in range(10):
        assert story.after(20, L, L, L) == 1
        assert story.after(5, D, L, L) == 1


def test_from_a_dead_one_to_a_better_one_without_a_hold() -> None:
    story = Story(hold=30)
    story.after(0, D, D, L)
    assert story.after(1, D, L, L) == 2
    assert story.after(1, D, L, D) == 1


def test_change_is_told_once_and_dated() -> None:
    story = Story()
    assert not story.failover.judge((L, L, L))
    story.clock.now += 7
    assert story.failover.judge((D, L, L))
    assert story.failover.since == story.clock.now
    assert not story.failover.judge((D, L, L))


def test_order_starts_with_the_active_one() -> None:
    story = Story()
    assert story.failover.order() == (0, 1, 2)
    story.after(0, D, D, L)
    assert story.failover.order() == (2, 0, 1)


@given(st.lists(st.tuples(st.floats(0, 40), st.tuples(*[st.sampled_from(TargetHealth)] * 3)), max_size=30))
def test_a_dead_one_is_never_active_while_another_lives(
    history: list[tuple[float, tuple[TargetHealth, TargetHealth, TargetHealth]]],
) -> None:
    story = Story()
    for seconds, lives in history:
        active = story.after(seconds, *lives)
        assert lives[active] is not D or L not in lives
