"""Targets: one normal form, every reading, and no guessing."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from agent.http1.target import MAX_PATH, TargetReason, TargetRefused, parse_target, rule_path, unescaped

# target, what the app gets, how it may be read (the same, where nothing is said)
SAME_MEANING = [
    ("/", "/", ["/"]),
    ("/a/b.c", "/a/b.c", ["/a/b.c"]),
    ("/a/", "/a/", ["/a/"]),
    ("/a?b=/../c%2f#".rstrip("#"), "/a?b=/../c%2f", ["/a"]),
    ("/a?", "/a?", ["/a"]),
    ("//a", "/a", ["/a"]),
    ("/a///b//", "/a/b/", ["/a/b/"]),
    ("//", "/", ["/"]),
    ("/./a/./b", "/a/b", ["/a/b"]),
    ("/a/.", "/a/", ["/a/"]),
    ("/x/../a", "/a", ["/a"]),
    ("/x/y/../../a/..", "/", ["/"]),
    ("/x/y/..", "/x/", ["/x/"]),
    ("/x//../a", "/a", ["/a"]),
    ("/...", "/...", ["/..."]),
    ("/.well-known", "/.well-known", ["/.well-known"]),
    ("/%61dmin", "/admin", ["/admin"]),
    ("/%2e/a", "/a", ["/a"]),
    ("/x/%2E%2e/a", "/a", ["/a"]),
    ("/x/.%2e/a?q", "/a?q", ["/a"]),
    ("/a%20b", "/a%20b", ["/a%20b"]),
    ("/a%c3%a9", "/a%C3%A9", ["/a%C3%A9"]),
    ("/a%21b", "/a%21b", ["/a!b"]),  # an escape of a reserved character is kept, and judged as what it means
    ("/a!b", "/a!b", ["/a!b"]),
    ("/a%3Fb", "/a%3Fb", ["/a%3Fb"]),
    ("/a%23b", "/a%23b", ["/a%23b"]),
    ("/a[1]|b", "/a%5B1%5D%7Cb", ["/a%5B1%5D%7Cb"]),
    ("/100%25", "/100%25", ["/100%25"]),
    ("/a;x=1/b", "/a;x=1/b", ["/a;x=1/b", "/a/b"]),
    ("/a%3bx/b", "/a%3Bx/b", ["/a;x/b", "/a/b"]),
    ("/a/..;/b", "/a/..;/b", ["/a/..;/b", "/a/../b", "/b"]),
    ("/a;/..;", "/a;/..;", ["/a;/..;", "/a/..", "/"]),  # an app that takes them off may resolve no dots
    ("/a/;/b", "/a/;/b", ["/a/;/b", "/a//b", "/a/b"]),
    ("http://db/a", "/a", ["/a"]),
    ("HTTPS://DB/x/../a?q", "/a?q", ["/a"]),
    ("http://db", "/", ["/"]),
    ("http://db?q", "/?q", ["/"]),
]

REFUSED = [
    ("*", TargetReason.FORM),
    ("a", TargetReason.FORM),
    ("db:80", TargetReason.FORM),
    ("ftp://db/a", TargetReason.FORM),
    ("http:///a", TargetReason.FORM),
    ("http://user@db/a", TargetReason.FORM),
    ("http://db/a#f", TargetReason.FRAGMENT),
    ("/a#f", TargetReason.FRAGMENT),
    ("/a?b#f", TargetReason.FRAGMENT),
    ("http://other/a", TargetReason.HOST_MISMATCH),
    ("http://db:80/a", TargetReason.HOST_MISMATCH),
    ("/a\\b", TargetReason.BACKSLASH),
    ("/a%2fb", TargetReason.ENCODED_SLASH),
    ("/a%2Fb", TargetReason.ENCODED_SLASH),
    ("/a%5cb", TargetReason.ENCODED_SLASH),
    ("/a%00", TargetReason.CONTROL),
    ("/a%0d%0ab", TargetReason.CONTROL),
    ("/a%7f", TargetReason.CONTROL),
    ("/a%", TargetReason.BAD_ESCAPE),
    ("/a%2", TargetReason.BAD_ESCAPE),
    ("/a%zz", TargetReason.BAD_ESCAPE),
    ("/a%u002e", TargetReason.BAD_ESCAPE),
    ("/a%%32%65", TargetReason.BAD_ESCAPE),
    ("/%c0%ae", TargetReason.NOT_UTF8),
    ("/%e0%80%af", TargetReason.NOT_UTF8),
    ("/%ff", TargetReason.NOT_UTF8),
    ("/%252e%252e/a", TargetReason.DOUBLE_ENCODING),
    ("/%25%32%65", TargetReason.DOUBLE_ENCODING),
    ("/a%252fb", TargetReason.DOUBLE_ENCODING),
    ("/..", TargetReason.ABOVE_ROOT),
    ("/a/../../b", TargetReason.ABOVE_ROOT),
    ("/a/..;/..;/b", TargetReason.ABOVE_ROOT),
]


@pytest.mark.parametrize(("target", "sent", "readings"), SAME_MEANING, ids=[row[0] for row in SAME_MEANING])
def test_it_is_sent_and_judged_in_normal_form(target: str, sent: str, readings: list[str]) -> None:
    parsed = parse_target(target.encode(), "GET", b"db")
    assert (parsed.sent.decode(), list(parsed.readings)) == (sent, readings)


@pytest.mark.parametrize("sent", [row[1] for row in SAME_MEANING if "?" not in row[1]])
def test_the_normal_form_is_its_own_normal_form(sent: str) -> None:
    assert parse_target(sent.encode(), "GET", b"db").sent == sent.encode()


@pytest.mark.parametrize(("target", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_ambiguous_is_refused(target: str, reason: TargetReason) -> None:
    with pytest.raises(TargetRefused) as refused:
        parse_target(target.encode(), "GET", b"db")
    assert refused.value.reason is reason


@pytest.mark.parametrize("unit", [b"a", b"/a", b"/", b"/.", b"%61", b"%C3%A9", b"%25", b"[", b";/", b"a%41"])
def test_a_path_has_at_most_4_kilobytes(unit: bytes) -> None:
    most = b"/" + unit * ((MAX_PATH - 1) // len(unit))
    assert parse_target(most + b"?" + b"q" * MAX_PATH, "GET", b"db").readings
    with pytest.raises(TargetRefused) as refused:
        parse_target(most + unit, "GET", b"db")
    assert (refused.value.reason, refused.value.status) == (TargetReason.TOO_LONG, 414)


@pytest.mark.parametrize("path", [row[0] for row in SAME_MEANING if "?" not in row[0]])
def test_a_path_says_the_same_in_normal_form_and_without_escapes(path: str) -> None:
    for reading in parse_target(path.encode(), "GET", b"db").readings:
        assert unescaped(reading) == unquote(reading)


def test_the_asterisk_is_for_options_alone() -> None:
    assert parse_target(b"*", "OPTIONS", b"db").readings == ("*",)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/", "/"),
        ("/api/", "/api/"),
        ("/a b", "/a%20b"),
        ("/a%20b", "/a%20b"),
        ("/%61", "/a"),
        ("/é", "/%C3%A9"),
    ],
)
def test_a_rules_path_is_brought_to_the_same_form(text: str, written: str) -> None:
    assert rule_path(text) == written


@pytest.mark.parametrize("text", ["/a//b", "/a/./b", "/a/..", "/a?b", "/a#b", "/a%2Fb", "/100%", "/a\\b"])
def test_a_rules_path_no_request_could_have_is_refused(text: str) -> None:
    with pytest.raises(TargetRefused):
        rule_path(text)
