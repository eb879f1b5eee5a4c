"""Single conditions: to the letter where they allow, generously where they deny."""

from __future__ import annotations

import pytest

from agent.http1.request import Values, fold
from agent.policy.http_match import (
    MOST_ELEMENTS,
    HeaderRule,
    HeaderTest,
    PathExact,
    PathPrefix,
    PathRegex,
    PathRule,
)
from agent.policy.regex import compile_pattern, generous_patterns

YES, NO, UNCERTAIN = frozenset({True}), frozenset({False}), frozenset({True, False})


def regex(text: str) -> PathRegex:
    return PathRegex(compile_pattern(text), generous_patterns(text))


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
        (PathPrefix("/admin/"), "/admin", False, True),
        (PathPrefix("/admin/"), "/ADMIN", False, True),
        (PathPrefix("/admin/"), "/administrator", False, False),
        (PathPrefix("/admin/x"), "/admin", False, False),
        (PathPrefix("/"), "*", False, False),
        (regex("/re/.*"), "/re/x", True, True),
        (regex("/re/[a-z]+"), "/RE/X", False, True),
        (regex("/re/[a-z]+"), "/re/x/", False, True),
        (regex("/re"), "/x/re", False, False),
        (regex("/"), "/", True, True),
        (regex("/re/"), "/re", False, True),
        (regex("/re/"), "/RE/", False, True),
        (PathExact("/caf%C3%A9"), "/caf%C3%89", False, True),
        (PathPrefix("/caf%C3%A9"), "/CAF%C3%89/x", False, True),
        (regex("/a%2Bb"), "/a+b", False, True),
        (regex("/a%2bb"), "/A+B/", False, True),
        (regex(r"/a\+b"), "/a+b", True, True),
        (regex("/a b"), "/a%20b", False, True),
        (regex("/a%20b"), "/a%20b", True, True),
        (regex("/caf."), "/caf%C3%A9", False, True),
        (regex("/café"), "/caf%C3%A9", False, True),
        (regex("/café"), "/CAF%C3%89", False, True),
        (regex("/(ä|%C3%B6)+"), "/%C3%B6%C3%A4%C3%B6", False, True),
        (regex("/100%25"), "/100%25", True, True),
        (regex("/100%25"), "/100", False, False),
        (regex("/a%5B1%5D"), "/a%5B1%5D", True, True),
        (regex(r"/a\[1\]"), "/a%5B1%5D", False, True),
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
        (HeaderTest.EXACT, "admin", ("user, admin",), UNCERTAIN),
        (HeaderTest.EXACT, "admin", ("user,admin",), UNCERTAIN),
        (HeaderTest.EXACT, "admin", (" ,\tadmin\t, ",), UNCERTAIN),
        (HeaderTest.EXACT, "admin", ("user, admin", "x"), UNCERTAIN),
        (HeaderTest.EXACT, "user, admin", ("user, admin",), UNCERTAIN),
        (HeaderTest.EXACT, "root", ("user, admin",), NO),
        (HeaderTest.EXACT, "", (",",), NO),
        (HeaderTest.PREFIX, "user", ("user, admin",), UNCERTAIN),
        (HeaderTest.PREFIX, "user", ("user1, user2",), YES),
        (HeaderTest.SUFFIX, "admin", ("root, admin",), UNCERTAIN),
        (HeaderTest.CONTAINS, "min", ("user, admin",), UNCERTAIN),
        (HeaderTest.CONTAINS, "x", ("user, admin",), NO),
        (HeaderTest.EXACT, "x", (",".join("a" * MOST_ELEMENTS),), NO),
        (HeaderTest.EXACT, "x", (",".join("a" * (MOST_ELEMENTS + 1)),), UNCERTAIN),
        (HeaderTest.EXACT, "x", ("," * 30_000,), UNCERTAIN),
        (HeaderTest.EXACT, "a", ("b, a", None), UNCERTAIN),
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


def test_a_pattern_looks_at_each_element_of_a_list() -> None:
    rule = HeaderRule(name="x", test=HeaderTest.REGEX, value="v[0-9]", pattern=compile_pattern("v[0-9]"))
    assert rule.answers(("v1, v2",)) == UNCERTAIN
    assert rule.answers(("a, b",)) == NO


@pytest.mark.parametrize("name", ["user-agent", "cookie", "content-type", "if-modified-since"])
def test_a_header_that_is_no_list_is_read_whole(name: str) -> None:
    rule = HeaderRule(name=name, test=HeaderTest.PREFIX, value="Mozilla/5.0 (KHTML")
    assert rule.answers(("Mozilla/5.0 (KHTML, like Gecko)",)) == YES


def test_cookies_are_put_together_by_semicolons() -> None:
    rule = HeaderRule(name="cookie", test=HeaderTest.EXACT, value="a=1; b=2")
    assert True in rule.answers(("a=1", "b=2"))


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
        (HeaderTest.EXACT, ("b, a",), UNCERTAIN),
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
