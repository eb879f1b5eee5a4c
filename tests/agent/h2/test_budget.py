"""The budget of what a peer may make us do."""

from __future__ import annotations

from agent.h2.budget import Budget


def test_a_burst_is_spent_and_refilled_by_time_up_to_itself() -> None:
    now = 0.0
    budget = Budget(3, 2, lambda: now)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [budget.spend(), budget.spend()] == [True, False]
    now = 1000.0
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
