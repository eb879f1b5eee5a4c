"""Single conditions: to the letter where they allow, generously where they deny."""

from __future__ import annotations

import pytest

from agent.http1.request import Values, fold
from agent.policy.http_match import HeaderRule, HeaderTest, PathExact, PathPrefix, PathRegex, PathRule
from agent.policy.regex import compile_pattern

YES, NO, UNCERTAIN = frozenset({True}), frozenset({False}), frozenset({True, False})


def regex(text: str) -> PathRegex:
    return PathRegex(compile_pattern(text), compile_pattern(text, ignore_case=True))


@pytest.mark.parametrize(
    ("rule", "path", "allows", "denies"),
    [
        (PathExact("/admin"), "/admin", True, True),
        (PathExact("/admin"), "/Admin", False, True),
        (PathExact("/admin"), "/admin/", False, True),
        (PathExact("/Admin/"), "/admin", False, True),
        (PathExact("/admin"), "/admin/x", False, False),
        (PathExact("/"), "/", True, True),
        (PathPrefix("/admin"), "/admin", True, True),
        (PathPrefix("/admin"), "/administrator", True, True),
        (PathPrefix("/admin/"), "/ADMIN/x", False, True),
        (PathPrefix("/admin/"), "/admin", False, False),
        (PathPrefix("/"), "*", False, False),
        (regex("/re/.*"), "/re/x", True, True),
        (regex("/re/[a-z]+"), "/RE/X", False, True),
        (regex("/re/[a-z]+"), "/re/x/", False, True),
        (regex("/re"), "/x/re", False, False),
        (regex("/"), "/", True, True),
    ],
)
def test_paths(rule: PathRule, path: str, allows: bool, denies: bool) -> None:
    assert (rule.allows(path), rule.denies(path)) == (allows, denies)


@pytest.mark.parametrize(
    ("test", "value", "values", "answers"),
    [
        (HeaderTest.PRESENT, "", (), NO),
        (HeaderTest.PRESENT, "", ("",), YES),
        (HeaderTest.PRESENT, "", ("a", "b"), YES),
        (HeaderTest.EXACT, "a", ("a",), YES),
        (HeaderTest.EXACT, "a", ("A",), NO),
        (HeaderTest.EXACT, "a", (), NO),
        (HeaderTest.EXACT, "a", ("a", "a"), UNCERTAIN),  # as a list they are `a,a`
        (HeaderTest.EXACT, "a", ("a", "b"), UNCERTAIN),
        (HeaderTest.EXACT, "a,b", ("a", "b"), UNCERTAIN),
        (HeaderTest.EXACT, "c", ("a", "b"), NO),
        (HeaderTest.EXACT, "a", (None,), UNCERTAIN),
        (HeaderTest.PREFIX, "a", ("ab",), YES),
        (HeaderTest.PREFIX, "a", ("a1", "a2"), YES),
        (HeaderTest.PREFIX, "a", ("a1", "b"), UNCERTAIN),
        (HeaderTest.SUFFIX, "b", ("ab",), YES),
        (HeaderTest.CONTAINS, "b", ("abc",), YES),
        (HeaderTest.CONTAINS, "x", ("abc",), NO),
    ],
)
def test_headers(test: HeaderTest, value: str, values: Values, answers: frozenset[bool]) -> None:
    assert HeaderRule(name="x", test=test, value=value).answers(values) == answers


def test_a_pattern_on_a_header() -> None:
    rule = HeaderRule(name="x", test=HeaderTest.REGEX, value="v[0-9]", pattern=compile_pattern("v[0-9]"))
    assert rule.answers(("v1",)) == YES
    assert rule.answers(("av1",)) == NO


@pytest.mark.parametrize(
    ("test", "values", "answers"),
    [
        (HeaderTest.PRESENT, (), YES),
        (HeaderTest.PRESENT, ("a",), NO),
        (HeaderTest.EXACT, ("a",), NO),
        (HeaderTest.EXACT, ("b",), YES),
        (HeaderTest.EXACT, (), UNCERTAIN),  # Envoy: no; the word: yes
        (HeaderTest.EXACT, (None,), UNCERTAIN),
    ],
)
def test_inverted(test: HeaderTest, values: Values, answers: frozenset[bool]) -> None:
    assert HeaderRule(name="x", test=test, value="a", invert=True).answers(values) == answers


def test_case_can_be_ignored() -> None:
    rule = HeaderRule(name="x", test=HeaderTest.EXACT, value="Ab", ignore_case=True)
    assert rule.answers(("aB",)) == YES


def test_names_have_one_spelling() -> None:
    assert fold("X_Forwarded-Client_CERT") == "x-forwarded-client-cert"


def test_conditions_can_be_read() -> None:
    texts = [PathExact("/a"), PathPrefix("/a"), regex("/a+")]
    assert [str(text) for text in texts] == ["/a", "/a*", "~/a+"]
    assert str(HeaderRule(name="x", test=HeaderTest.PRESENT, invert=True)) == "x not present"
    assert str(HeaderRule(name="x", test=HeaderTest.EXACT, value="1")) == "x exact 1"
