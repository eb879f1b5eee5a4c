"""The conditions of a permission on an HTTP request: path and headers, over all their readings.

`allows` compares strictly, `denies` by every reading an app could make; `permissions.py` says why there are
both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

import msgspec

from agent.http1.request import Values
from agent.http1.target import unescaped
from agent.policy.regex import Pattern

_REMEMBERED = 1024  # paths of rules whose folded form is cached
MOST_ELEMENTS = 64  # of a header that is a list; the content of a longer list is treated as uncertain

# Headers that are no lists, although their values may hold commas (RFC 9110, RFC 6265, RFC 6454).
_SINGLE = frozenset(
    {"authorization", "content-length", "content-location", "content-range", "content-type", "cookie"}
    | {"date", "expires", "from", "host", "if-modified-since", "if-range", "if-unmodified-since"}
    | {"last-modified", "max-forwards", "origin", "proxy-authorization", "range", "referer", "user-agent"}
)


def _any_case(path: str) -> str:
    """Return the path as an app reads it that ignores case."""
    return unescaped(path).casefold()


_rule_in_any_case = lru_cache(maxsize=_REMEMBERED)(_any_case)  # there are few rules, used for each request


class PathExact(msgspec.Struct, frozen=True, tag=True):
    """This path; to deny, in any case and with or without a closing slash."""

    text: str

    def allows(self, path: str) -> bool:
        """Return whether the path matches strictly."""
        return path == self.text

    def denies(self, path: str) -> bool:
        """Return whether an app could read the path as a match."""
        return _any_case(path).rstrip("/") == _rule_in_any_case(self.text).rstrip("/")

    def __str__(self) -> str:
        return self.text


class PathPrefix(msgspec.Struct, frozen=True, tag=True):
    """Paths that start with this text, wherever a segment ends.

    To deny, in any case, and also the directory itself, which an app may read with a slash after it.
    """

    text: str

    def allows(self, path: str) -> bool:
        """Return whether the path matches strictly."""
        return path.startswith(self.text)

    def denies(self, path: str) -> bool:
        """Return whether an app could read the path as a match."""
        return f"{_any_case(path)}/".startswith(_rule_in_any_case(self.text))

    def __str__(self) -> str:
        return f"{self.text}*"


class PathRegex(msgspec.Struct, frozen=True, tag=True):
    """Paths that a pattern describes completely.

    To deny, any of `generous` may describe any spelling: escaped or not, with a closing slash or not.
    """

    pattern: Pattern
    generous: tuple[Pattern, ...] = ()

    def allows(self, path: str) -> bool:
        """Return whether the path matches strictly."""
        return self.pattern.matches(path)

    def denies(self, path: str) -> bool:
        """Return whether an app could read the path as a match."""
        spellings = {end for text in (path, unescaped(path)) for end in _with_and_without_slash(text)}
        return any(pattern.matches(text) for pattern in self.generous for text in spellings)

    def __str__(self) -> str:
        return f"~{self.pattern.text}"


def _with_and_without_slash(path: str) -> tuple[str, str]:
    bare = path.rstrip("/")
    return bare or "/", f"{bare}/"


PathRule: TypeAlias = PathExact | PathPrefix | PathRegex


class HeaderTest(StrEnum):
    """How a header's value is compared."""

    PRESENT = "present"
    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRule:
    """One condition on a header; `name` is folded."""

    name: str
    test: HeaderTest
    value: str = ""
    pattern: Pattern | None = None
    invert: bool = False
    ignore_case: bool = False

    def answers(self, values: Values) -> frozenset[bool]:
        """Return the possible answers of the condition, over every reading of the values; () means absent.

        For an absent header an inverted comparison has both answers: Envoy says that it does not hold, the
        word `Invert` says that it does.
        """
        if self.test is HeaderTest.PRESENT:
            return frozenset({bool(values) is not self.invert})
        if not values:
            return frozenset({False, self.invert})
        return frozenset(
            answer is not self.invert for reading in self._readings(values) for answer in self._of(reading)
        )

    def _readings(self, values: Values) -> Values:
        """Return each value, repeated ones joined, and each element of a possible list.

        An app may use any.
        """
        if len(values) == 1 and (values[0] is None or "," not in values[0]):
            return values
        known = [value for value in values if value is not None]
        several = tuple(mark.join(known) for mark in (",", ", ", "; ")) if len(values) > 1 else ()
        return (*values, *several, *(() if self.name in _SINGLE else _elements(known)))

    def _of(self, value: str | None) -> tuple[bool, ...]:
        if value is None:
            return (False, True)
        if self.pattern is not None:
            return (self.pattern.matches(value),)
        wanted = self.value
        if self.ignore_case:
            value, wanted = value.lower(), wanted.lower()
        return (_COMPARE[self.test](value, wanted),)

    def __str__(self) -> str:
        word = f"not {self.test.value}" if self.invert else self.test.value
        return f"{self.name} {word} {self.value}".rstrip()


_COMPARE: Mapping[HeaderTest, Callable[[str, str], bool]] = {
    HeaderTest.EXACT: str.__eq__,
    HeaderTest.PREFIX: str.startswith,
    HeaderTest.SUFFIX: str.endswith,
    HeaderTest.CONTAINS: str.__contains__,
}


def _elements(values: Sequence[str]) -> Values:
    """Return the elements of a list (RFC 9110 §5.6.1), which may be spread over several headers."""
    elements = [element.strip(" \t") for value in values for element in value.split(",", MOST_ELEMENTS + 1)]
    return tuple(filter(None, elements)) if len(elements) <= MOST_ELEMENTS else (None,)
