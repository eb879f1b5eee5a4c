"""Lines, counts and the exit code of what doctor has found."""

from __future__ import annotations

from agent.base.exits import ExitCode
from agent.cli.findings import State, cause, eased, fail, ok, page, skip, warn, worst


def test_one_line_each_and_the_count() -> None:
    found = [ok("a", "well"), warn("b", "odd", "look"), fail("c", "broken", "mend"), skip("d", "not asked")]
    assert page(found).splitlines() == [
        "cause c: broken",
        "      mend",
        "",
        "ok    a: well",
        "warn  b: odd; look",
        "fail  c: broken; mend",
        "skip  d: not asked",
        "1 ok, 1 warn, 1 fail, 1 skip",
    ]
    assert found[0].row == {"state": "ok", "subject": "a", "found": "well"}
    assert found[2].row == {"state": "fail", "subject": "c", "found": "broken", "remedy": "mend"}


def test_the_worst_failure_decides() -> None:
    away = fail("a", "x", "y", ExitCode.UNAVAILABLE)
    denied = fail("b", "x", "y", ExitCode.PERMISSION)
    assert worst([ok("a", "x"), warn("b", "x", "y"), skip("c", "x")]) is ExitCode.CLEAN
    assert worst([away]) is ExitCode.UNAVAILABLE
    assert worst([denied, away]) is ExitCode.PERMISSION
    assert worst([denied, fail("c", "x", "y"), away]) is ExitCode.CONFIGURATION


def test_one_that_serves_is_enough() -> None:
    broken = fail("a", "x", "y", ExitCode.UNAVAILABLE)
    assert [one.state for one in eased([broken, ok("b", "x")])] == [State.WARN, State.OK]
    assert eased([broken, skip("b", "x")]) == [broken, skip("b", "x")]


def test_the_cause_stands_before_its_symptoms() -> None:
    agent = fail("running agent 7", "not ready", "mend it")
    upstream = fail("upstream db", "no instance", "register it")
    consul = fail("consul", "unreachable", "start it")
    assert cause([agent, upstream, consul]) is consul
    assert cause([agent, ok("consul", "answers"), upstream]) is upstream
    assert cause([ok("consul", "answers")]) is None
    shown = page([agent, consul])
    assert shown.startswith("cause consul: unreachable\n      start it\n\nfail  consul")


def test_a_warning_is_the_cause_where_nothing_fails_or_where_it_explains_what_fails() -> None:
    clock, odd = warn("clock", "+3600 s", "set both"), warn("upstream db", "ejected", "look")
    leaf = fail("leaf", "not valid yet", "wait")
    assert cause([odd, ok("consul", "answers")]) is odd
    assert cause([odd, leaf]) is leaf
    assert cause([leaf, clock]) is clock
    assert page([odd]).startswith("cause upstream db: ejected\n      look\n\nwarn  upstream db")
