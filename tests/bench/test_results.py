"""What the benches make of their figures: the table, the picture, and what a soak calls left behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest

from tests.bench.load import FIGURES, Figures, read_wrk
from tests.bench.plot import picture
from tests.bench.rig import BenchFailed
from tests.bench.soak import GROWTH_MB, MARGIN_MB, Sample, Seen, left_behind
from tests.bench.table import measured, table

MORE = next(figure for figure in FIGURES if figure.better == "more")
LESS = next(figure for figure in FIGURES if figure.better == "less")
RUN: dict[str, list[Figures]] = {
    "direct": [{LESS.name: 10, MORE.name: 900}],
    "sidecar": [
        {LESS.name: 200, MORE.name: 90},
        {LESS.name: 100, MORE.name: 100},
        {LESS.name: 150, MORE.name: 400},
    ],
    "envoy": [{LESS.name: 100, MORE.name: 200}],
}
SVG = "{http://www.w3.org/2000/svg}"


def test_the_table_has_medians_ranges_and_a_ratio() -> None:
    rows = table(RUN)
    (less,) = (row for row in rows if LESS.name in row)
    (more,) = (row for row in rows if MORE.name in row)
    assert "| 150 (100–200) | 100 | 1.50× |" in less
    assert "| 100 (90–400) | 200 | 0.50× |" in more
    assert len(rows) == 2 + len(measured(RUN)) == 4


def test_a_contestant_without_a_figure_has_a_dash() -> None:
    run = {**RUN, "consul": [{MORE.name: 50.0}]}
    (less,) = (row for row in table(run) if LESS.name in row)
    assert "| – |" in less


def test_to_the_right_is_better_whatever_the_figure() -> None:
    run: dict[str, list[Figures]] = {
        "sidecar": [{LESS.name: 50, MORE.name: 400}],
        "haproxy": [{LESS.name: 200, MORE.name: 100}],
        "envoy": [{LESS.name: 100, MORE.name: 200}],
    }
    root = ET.fromstring(picture(run, "a <title>"))
    line = next(float(one.attrib["x1"]) for one in root.iter(f"{SVG}line") if one.attrib["class"] == "one")
    dots = {
        (told.text or "").split(":")[0]: float(dot.attrib["cx"])
        for dot in root.iter(f"{SVG}circle")
        if (told := dot.find(f"{SVG}title")) is not None
    }
    assert dots["haproxy"] < line < dots["sidecar"]
    assert math.isclose(line - dots["haproxy"], dots["sidecar"] - line, abs_tol=0.2)


SAID = """\
  Latency Distribution
     50%   37.59ms
     99%    1.85s
  7411 requests in 2.06s, 8.76MB read
  Socket errors: connect 0, read {read}, write 0, timeout 12
Requests/sec:   3602.34
"""


def test_requests_that_wrk_calls_timed_out_are_slow_ones_and_end_no_bench() -> None:
    assert read_wrk(SAID.format(read=0), "envoy").per_second == pytest.approx(3602.34)


def test_requests_that_were_broken_off_end_the_bench() -> None:
    with pytest.raises(BenchFailed, match="envoy: the load saw errors"):
        read_wrk(SAID.format(read=20), "envoy")


def sample(
    *,
    live: int = 0,
    descriptors: int = 12,
    to_consul: int = 3,
    may_to_consul: int = 3,
    threads: int = 1,
    tasks: int = 20,
    resident_mb: float = 45,
) -> Sample:
    return Sample(
        at=0,
        live=live,
        descriptors=descriptors,
        to_consul=to_consul,
        may_to_consul=may_to_consul,
        threads=threads,
        tasks=tasks,
        resident_mb=resident_mb,
    )


CALM = sample()
FLOODED = sample(resident_mb=50)
DURING = [sample(live=2000, resident_mb=100) for _ in range(40)]


def seen(*, flooded: Sample = FLOODED, during: Sequence[Sample] = DURING, after: Sample = CALM) -> Seen:
    return Seen(before=CALM, flooded=flooded, during=during, after=after)


def test_a_soak_that_leaves_nothing() -> None:
    level = 45 + MARGIN_MB
    calm = seen(flooded=sample(resident_mb=level - GROWTH_MB), after=sample(resident_mb=level))
    assert left_behind("client", calm) == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (sample(live=1), "1 connections"),
        (sample(descriptors=13), "1 descriptors"),
        (sample(to_consul=6, may_to_consul=5), "6 connections to Consul, of 5"),
        (sample(threads=3), "2 threads"),
        (sample(tasks=23), "3 tasks"),
        (sample(resident_mb=51 + GROWTH_MB), "MB more than the first flood left"),
    ],
    ids=["connections", "descriptors", "consul", "threads", "tasks", "memory"],
)
def test_what_is_left_behind_is_named(after: Sample, told: str) -> None:
    (fault,) = left_behind("client", seen(after=after))
    assert told in fault


def test_more_connections_to_consul_within_the_budget_and_their_counting_are_no_fault() -> None:
    assert left_behind("server", seen(after=sample(to_consul=5, may_to_consul=5, threads=2))) == []


def test_a_first_flood_may_not_leave_all_it_likes() -> None:
    level = sample(resident_mb=46 + MARGIN_MB)
    (fault,) = left_behind("client", seen(flooded=level, after=level))
    assert "MB above the start" in fault


def test_memory_that_grows_to_the_end_is_named() -> None:
    growing = [sample(live=2000, resident_mb=100 + place * GROWTH_MB / 5) for place in range(40)]
    (fault,) = left_behind("client", seen(during=growing))
    assert "it grew" in fault
