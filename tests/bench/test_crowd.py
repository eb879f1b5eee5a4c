"""What sidecars on one host are told as, and which promise that is not kept fails the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.bench.crowd import Seen, told


def seen() -> Seen:
    """Three sidecars of which every promise was kept."""
    return Seen(
        sidecars=3,
        upstreams=8,
        ready=4.0,
        most=12,
        at_rest=9,
        asked=Counter({200: 40}),
        longest=0.25,
        stated=10.0,
        changes=[10.5, 1.0, 6.0],
        unknown=9.5,
        alone=30.0,
        connections_alone=13,
        change_alone=0.1,
    )


def test_the_figures_are_told_in_order() -> None:
    lines = told(seen(), "consul")
    assert lines[0] == "3 sidecars of 8 upstreams beside one agent (consul)"
    assert "connections to the agent: 12 at the most, 9 at rest, of 200" in lines
    assert "another client: 40 questions, not answered with 200: none, the longest took 0.25 s" in lines
    assert "a change of endpoints, of 10.0 s stated: 3 sidecars knew it" in lines
    assert "half of them after 6.0 s, the last between 9.5 and 10.5 s" in lines


@pytest.mark.parametrize(
    "broken",
    [
        replace(seen(), most=201),
        replace(seen(), asked=Counter({200: 39, 429: 1})),
        replace(seen(), failures=Counter({"unavailable": 1})),
        replace(seen(), changes=[1.0, 6.0]),
        replace(seen(), unknown=10.1),
    ],
    ids=["too many connections", "another client refused", "a failure", "not known to all", "known too late"],
)
def test_a_promise_that_is_not_kept_is_told(broken: Seen) -> None:
    assert seen().kept
    assert not broken.kept
    assert told(broken, "consul")[0].endswith(": FAILED")
