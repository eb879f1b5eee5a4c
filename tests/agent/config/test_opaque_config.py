"""Opaque maps: a value, a default, or a problem that says where."""

from __future__ import annotations

from enum import StrEnum

import pytest

from agent.config.opaque_config import ConfigReader, Problem, ProblemReason


def reader(**config: object) -> ConfigReader:
    return ConfigReader(where="Config", config=config)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(750, 0.75), (750.0, 0.75), (0.5, 0.0005), ("750", 0.75), ("3s", 3.0), ("1m30s", 90.0), (None, 5.0)],
)
def test_times_are_milliseconds_or_durations(value: object, seconds: float) -> None:
    config = reader(x=value)
    assert config.seconds("x", 5.0) == pytest.approx(seconds)
    assert config.problems == []


@pytest.mark.parametrize("value", [True, 0, -1, "soon", "", [], {}, float("inf"), float("nan"), "0s"])
def test_other_times_are_problems_and_the_default_holds(value: object) -> None:
    config = reader(x=value)
    assert config.seconds("x", 5.0) == 5.0
    assert [(problem.where, problem.reason) for problem in config.problems] == [
        ("Config.x", ProblemReason.WRONG_VALUE)
    ]
    assert repr(value) in config.problems[0].detail
    assert "5 s is used" in config.problems[0].detail


@pytest.mark.parametrize(("value", "seconds"), [("15s", 15.0), (None, None)])
def test_durations(value: object, seconds: float | None) -> None:
    assert reader(x=value).duration("x") == seconds


@pytest.mark.parametrize("value", [15, "15", "0s", "x", True])
def test_other_durations_are_problems(value: object) -> None:
    config = reader(x=value)
    assert config.duration("x") is None
    assert len(config.problems) == 1


@pytest.mark.parametrize(("value", "count"), [(3, 3), (3.0, 3), ("3", 3), (None, None)])
def test_counts(value: object, count: int | None) -> None:
    config = reader(x=value)
    assert config.count("x") == count
    assert config.problems == []


@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True, []])
def test_other_counts_are_problems(value: object) -> None:
    config = reader(x=value)
    assert config.count("x") is None
    assert len(config.problems) == 1


@pytest.mark.parametrize(
    ("value", "port"), [(8080, 8080), (8080.0, 8080), ("8080", 8080), (0, None), (None, None)]
)
def test_ports(value: object, port: int | None) -> None:
    config = reader(x=value)
    assert config.port("x") == port
    assert config.problems == []


@pytest.mark.parametrize("value", [65536, -1, "http", 1.5, True])
def test_other_ports_are_problems(value: object) -> None:
    config = reader(x=value)
    assert config.port("x") is None
    assert len(config.problems) == 1


@pytest.mark.parametrize(
    ("value", "flag", "problems"),
    [(True, True, 0), (False, False, 0), (None, False, 0), ("true", False, 1), (1, False, 1)],
)
def test_flags(value: object, flag: bool, problems: int) -> None:
    config = reader(x=value)
    assert config.flag("x") is flag
    assert len(config.problems) == problems


@pytest.mark.parametrize(
    ("value", "text", "problems"), [("http", "http", 0), ("", "tcp", 0), (None, "tcp", 0), (7, "tcp", 1)]
)
def test_texts(value: object, text: str, problems: int) -> None:
    config = reader(x=value)
    assert config.text("x", "tcp") == text
    assert len(config.problems) == problems


def test_inner_maps_share_the_problems() -> None:
    config = reader(limits={"max_connections": -1}, other=3)
    assert config.within("limits").count("max_connections") is None
    assert config.within("other").count("max_connections") is None
    assert config.within("absent").count("max_connections") is None
    assert [problem.where for problem in config.problems] == ["Config.limits.max_connections", "Config.other"]


def test_problem_prints_where_why_and_what() -> None:
    problem = Problem(where="Upstreams[1]", reason=ProblemReason.NO_BIND, detail="no port")
    assert str(problem) == "Upstreams[1]: no_bind: no port"


class Colour(StrEnum):
    RED = "red"


def test_choices() -> None:
    config = reader(a="red", b="blue", c=["red"])
    assert config.choice("a", Colour) is Colour.RED
    assert config.choice("absent", Colour) is None
    assert config.problems == []
    assert [config.choice(key, Colour) for key in "bc"] == [None, None]
    assert [problem.detail for problem in config.problems] == [
        "'blue' is not one of red; ignored",
        "['red'] is not one of red; ignored",
    ]


def test_tables_are_read_one_by_one() -> None:
    config = reader(a=[{"n": 3}, {"n": "x"}], b=[3], c={})
    assert [table.count("n") for table in config.tables("a")] == [3, None]
    assert config.tables("b") == config.tables("c") == config.tables("absent") == []
    assert [problem.where for problem in config.problems] == ["Config.a[1].n", "Config.b", "Config.c"]


def test_of_several_spellings_the_one_that_is_there() -> None:
    assert reader(MaxFailures=3).spelt("max_failures", "MaxFailures") == "MaxFailures"
    assert reader().spelt("max_failures", "MaxFailures") == "max_failures"


def test_a_value_that_cannot_be_written_out_is_told_of_all_the_same() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    config = reader(deep=deep, long=10**5000)
    assert (config.port("deep"), config.port("long")) == (None, None)
    assert [problem.detail.partition(" is ")[0] for problem in config.problems] == [
        "a value nested too deep",
        "a number of thousands of digits",
    ]
