"""What a permission can ask of an HTTP request: its path, its method, its headers, each read in several ways.

`allows` is to the letter, `denies` as generously as an app could read it; `permissions.py` says why both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import msgspec

from agent.http1.request import Values
from agent.policy.regex import Pattern

# By these an app may be told to take a request for another one than its request line says.
OVERRIDING = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
)


class PathExact(msgspec.Struct, frozen=True, tag=True):
    """This path; where it denies, in any case and with or without a closing slash."""

    text: str

    def allows(self, path: str) -> bool:
        """To the letter."""
        return path == self.text

    def denies(self, path: str) -> bool:
        """As generously as an app could read it."""
        return path.lower().rstrip("/") == self.text.lower().rstrip("/")

    def __str__(self) -> str:
        return self.text


class PathPrefix(msgspec.Struct, frozen=True, tag=True):
    """Paths that begin so, whether or not a segment ends there; where it denies, in any case."""

    text: str

    def allows(self, path: str) -> bool:
        """To the letter."""
        return path.startswith(self.text)

    def denies(self, path: str) -> bool:
        """As generously as an app could read it."""
        return path.lower().startswith(self.text.lower())

    def __str__(self) -> str:
        return f"{self.text}*"


class PathRegex(msgspec.Struct, frozen=True, tag=True):
    """Paths that a pattern describes whole; `generous` is the same pattern for any case."""

    pattern: Pattern
    generous: Pattern

    def allows(self, path: str) -> bool:
        """To the letter."""
        return self.pattern.matches(path)

    def denies(self, path: str) -> bool:
        """As generously as an app could read it."""
        return self.generous.matches(path) or self.generous.matches(path.rstrip("/") or "/")

    def __str__(self) -> str:
        return f"~{self.pattern.text}"


PathRule: TypeAlias = PathExact | PathPrefix | PathRegex


class HeaderTest(StrEnum):
    """How a header's value is looked at."""

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
        """Whether the condition holds, by every reading of the header's values; none: it is absent.

        An absent header and an inverted test of its value: whether that holds is read both ways (Envoy says
        no, the word `Invert` says yes), so it is not certain.
        """
        if self.test is HeaderTest.PRESENT:
            return frozenset({bool(values) is not self.invert})
        if not values:
            return frozenset({False, self.invert})
        return frozenset(
            answer is not self.invert for reading in _several(values) for answer in self._of(reading)
        )

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


def _several(values: Values) -> Values:
    """Each of repeated values, and their list: an app may see any of these."""
    if len(values) == 1:
        return values
    known = [value for value in values if value is not None]
    return (*values, ",".join(known), ", ".join(known))
