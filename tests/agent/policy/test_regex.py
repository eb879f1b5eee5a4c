"""Patterns are RE2, match the whole text, and their absence is told."""

from __future__ import annotations

import sys

import pytest

from agent.policy.regex import UnsupportedPattern, compile_pattern, generous_patterns


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("/re/.*", "/re/x", True),
        ("/re/.*", "/x/re/x", False),
        ("/re", "/re/x", False),
        ("^v[0-9]+$", "v12", True),
        ("a|ab", "ab", True),  # whole, not the first alternative
        (r"(?i)x", "X", True),
        (r"\pL+", "é", True),
        ("(a+)+", "a" * 5000 + "b", False),  # no backtracking
    ],
)
def test_a_pattern_describes_the_whole_text(pattern: str, text: str, matches: bool) -> None:
    assert compile_pattern(pattern).matches(text) is matches


def test_case_can_be_ignored() -> None:
    assert compile_pattern("/Admin", ignore_case=True).matches("/aDMIN")


def test_patterns_of_one_text_are_equal() -> None:
    assert compile_pattern("a") == compile_pattern("a")
    assert compile_pattern("a") != compile_pattern("a", ignore_case=True)


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{1001}", "(?:[a-z]{1000}){1000}"])
def test_what_the_engine_does_not_take_is_named(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern, match="'"):
        compile_pattern(pattern)


def test_without_the_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(UnsupportedPattern, match=r"connect-sidecar\[l7\]"):
        compile_pattern("a")


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("/a", "/a"),
        ("/a b", "/a b"),
        ("/a%2Bb", r"/a\+b"),
        (r"/a\%2bb", r"/a\+b"),
        (r"/a\\%2Bb", r"/a\\\+b"),
        ("/%C3%A9+", "/é+"),
        ("/%5F%61", "/_a"),
        ("/100%25", r"/100\%"),
        ("/a%2Fb%5C%00", "/a%2Fb%5C%00"),  # no request has these
        ("/[]x][^]y][[:alpha:]]%20", r"/[]x][^]y][[:alpha:]]\ "),
    ],
)
def test_escapes_in_a_denying_pattern_stand_for_their_characters_too(pattern: str, meant: str) -> None:
    patterns = generous_patterns(pattern)
    assert [one.text for one in patterns] == list(dict.fromkeys((pattern, meant)))
    assert all(one.ignore_case for one in patterns)


@pytest.mark.parametrize(
    "pattern",
    ["/100%", "/%2[Bb]", "/%.{2}", "/[%a]", "/[^]%]", "/%ff", "/%C3", r"\Q%2B\E", "/%2", r"/%\x32B", "/%%20"],
)
def test_a_percent_sign_of_uncertain_meaning_is_not_taken(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern, match="%"):
        generous_patterns(pattern)
