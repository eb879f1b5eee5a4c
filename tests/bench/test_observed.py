"""What being seen costs is judged round by round, against its two bounds."""

from __future__ import annotations

import pytest

from tests.bench.observed import Costs, distance, table, verdict


def costs(requests: list[float], resident: float) -> Costs:
    return Costs(
        requests=requests, request_cpu=[50.0] * 3, fresh=[80.0] * 3, fresh_cpu=[3000.0] * 3, resident=resident
    )


def test_a_slow_round_slows_both_figures_and_not_their_distance() -> None:
    assert distance([990.0, 495.0, 1980.0], [1000.0, 500.0, 2000.0]) == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("requests", "resident", "said"),
    [
        ([980.0, 490.0, 1960.0], 51.9, "-2.0% requests/s (at most -3%) and +1.9 MB (at most +2): within the"),
        (
            [960.0, 480.0, 1920.0],
            50.0,
            "-4.0% requests/s (at most -3%) and +0.0 MB (at most +2): **not within**",
        ),
        (
            [1000.0, 500.0, 2000.0],
            52.5,
            "+0.0% requests/s (at most -3%) and +2.5 MB (at most +2): **not within**",
        ),
    ],
)
def test_the_verdict_names_both_bounds(requests: list[float], resident: float, said: str) -> None:
    off, on = costs([1000.0, 500.0, 2000.0], 50.0), costs(requests, resident)
    assert said in verdict(off, on)
    assert len(table({"off": off, "default": on})) == 4
