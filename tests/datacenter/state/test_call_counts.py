"""Calls by endpoint, their durations, and the reads that are held."""

from __future__ import annotations

import pytest
import trio

from datacenter.state.call_counts import Durations, Tally, label


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/agent/metrics", "v1_agent_metrics"),
        ("/v1/health/connect/{service}", "v1_health_connect_"),
        ("/v1/query/{id}/execute", "v1_query_"),
        ("/v1/agent/connect/ca/leaf/{service}", "v1_agent_connect_ca_leaf_"),
    ],
)
def test_a_path_is_labelled_as_consul_does(path: str, expected: str) -> None:
    assert label(path) == expected


def test_durations() -> None:
    found = Durations()
    assert (found.count, found.mean, found.deviation) == (0, 0.0, 0.0)
    for milliseconds in (3.0, 1.0, 5.0):
        found.add(milliseconds)
    assert (found.count, found.sum, found.least, found.most, found.mean) == (3, 9.0, 1.0, 5.0, 3.0)
    assert found.deviation == pytest.approx(2.0)


async def test_a_call_counts_when_it_is_over_however_it_ends(autojump_clock: object) -> None:
    tally = Tally()
    with trio.move_on_after(2), tally.call("GET", "/v1/things/{name}"):
        assert not tally.calls
        await trio.sleep_forever()
    with pytest.raises(ValueError, match="odd"), tally.call("GET", "/v1/things/{name}"):
        raise ValueError("odd")
    (durations,) = tally.calls.values()
    assert (durations.count, durations.sum) == (2, 2000.0)


def test_what_is_held_is_let_go() -> None:
    tally = Tally()
    with tally.holding(), tally.holding():
        assert tally.held == 2
    assert tally.held == 0
