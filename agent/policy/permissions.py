"""An intention's `Permissions`: which HTTP requests it allows; the first one that matches decides.

A request can be read in more than one way: an app may ignore case, strip `;parameters` or a closing slash,
use the first or the last of repeated headers, or their list. The sidecar does not know which, so no verdict
may depend on it: **a permission that denies matches if any reading does, one that allows only if every
reading does.** If the app's own reading would meet a denial first, the request is denied here too, because an
earlier permission that allows has matched every reading, that one included.

If a permission cannot be read (a pattern, a JWT requirement, a field of a later Consul), the whole list
denies, with that reason: a list with a gap is not the list that was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from agent.http1.request import HttpRequest, fold
from agent.http1.target import rule_path
from agent.policy.http_match import HeaderRule, HeaderTest, PathExact, PathPrefix, PathRegex, PathRule
from agent.policy.regex import UnsupportedPattern, compile_pattern, generous_patterns

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Unreadable(StrEnum):
    """Why a list of permissions cannot be applied."""

    PATTERN = "unsupported_pattern"
    PERMISSION = "unsupported_permission"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One permission, of which every given condition must hold. `number` counts from 1."""

    number: int
    allow: bool
    path: PathRule | None = None
    methods: frozenset[str] = frozenset()
    headers: tuple[HeaderRule, ...] = ()

    def matches(self, request: HttpRequest) -> bool:
        """Return whether it decides about the request (see the module)."""
        return self._certainly(request) if self.allow else self._possibly(request)

    def _certainly(self, request: HttpRequest) -> bool:
        return (
            (not self.methods or request.method in self.methods)
            and (self.path is None or all(map(self.path.allows, request.paths)))
            and all(False not in rule.answers(request.headers.get(rule.name, ())) for rule in self.headers)
        )

    def _possibly(self, request: HttpRequest) -> bool:
        return (
            (not self.methods or request.method.upper() in self.methods)
            and (self.path is None or any(map(self.path.denies, request.paths)))
            and all(True in rule.answers(request.headers.get(rule.name, ())) for rule in self.headers)
        )

    def __str__(self) -> str:
        verb = "allow" if self.allow else "deny"
        methods = " ".join(sorted(self.methods)) or "any method"
        where = "any path" if self.path is None else str(self.path)
        conditions = "".join(f" if {rule}" for rule in self.headers)
        return f"permission {self.number}: {verb} {methods} {where}{conditions}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """An intention's permissions in order. `unreadable`: why none of them can be applied."""

    rules: tuple[Permission, ...] = ()
    unreadable: Unreadable | None = None
    detail: str = ""

    def first(self, request: HttpRequest) -> Permission | None:
        """Return the permission that decides; None leaves it to the default policy."""
        return next((rule for rule in self.rules if rule.matches(request)), None)

    @property
    def header_names(self) -> frozenset[str]:
        """The headers, folded, that any permission looks at."""
        return frozenset(header.name for rule in self.rules for header in rule.headers)


class _HeaderAnswer(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    name: str
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False
    ignore_case: bool = False


class _HttpAnswer(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    methods: list[str] | None = None
    header: list[_HeaderAnswer] | None = None


class _PermissionAnswer(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    action: str
    http: _HttpAnswer = msgspec.field(name="HTTP")


def parse_permissions(answer: Sequence[object]) -> Permissions:
    """Read an intention's `Permissions`. Never raises: the value says what cannot be read."""
    try:
        items = msgspec.convert(answer, list[_PermissionAnswer])
        return Permissions(rules=tuple(_permission(number, item) for number, item in enumerate(items, 1)))
    except UnsupportedPattern as error:
        return Permissions(unreadable=Unreadable.PATTERN, detail=str(error))
    except (msgspec.ValidationError, ValueError) as error:
        return Permissions(unreadable=Unreadable.PERMISSION, detail=str(error))


def unreadable_permissions(detail: str) -> Permissions:
    """Return permissions that deny every request, with the reason."""
    return Permissions(unreadable=Unreadable.PERMISSION, detail=detail)


def _permission(number: int, item: _PermissionAnswer) -> Permission:
    if item.action not in {"allow", "deny"}:
        raise ValueError(f"permission {number}: action {item.action!r}")
    http = item.http
    permission = Permission(
        number=number,
        allow=item.action == "allow",
        path=_path(http, allow=item.action == "allow"),
        methods=frozenset(method.upper() for method in http.methods or ()),
        headers=tuple(_header(header) for header in http.header or ()),
    )
    if permission.path is None and not permission.methods and not permission.headers:
        raise ValueError(f"permission {number} says nothing about the request")
    return permission


def _path(http: _HttpAnswer, *, allow: bool) -> PathRule | None:
    given = [text for text in (http.path_exact, http.path_prefix, http.path_regex) if text]
    if len(given) > 1:
        raise ValueError("more than one path")
    if not given:
        return None
    if http.path_regex:
        return PathRegex(compile_pattern(given[0]), () if allow else generous_patterns(given[0]))
    if not given[0].startswith("/"):
        raise ValueError(f"the path {given[0]!r} does not begin with a slash")
    text = rule_path(given[0])
    return PathExact(text) if http.path_exact else PathPrefix(text)


def _header(header: _HeaderAnswer) -> HeaderRule:
    if not _TOKEN.fullmatch(header.name):
        raise ValueError(f"{header.name!r} is not the name of a header")
    texts = {
        HeaderTest.EXACT: header.exact,
        HeaderTest.PREFIX: header.prefix,
        HeaderTest.SUFFIX: header.suffix,
        HeaderTest.CONTAINS: header.contains,
        HeaderTest.REGEX: header.regex,
    }
    given = [(test, text) for test, text in texts.items() if text]
    if header.present:
        given.append((HeaderTest.PRESENT, ""))
    if len(given) != 1:
        raise ValueError(f"header {header.name!r} has {len(given)} conditions, not one")
    test, text = given[0]
    if header.ignore_case and test in {HeaderTest.PRESENT, HeaderTest.REGEX}:
        raise ValueError(f"header {header.name!r}: IgnoreCase says nothing about {test.value}")
    return HeaderRule(
        name=fold(header.name),
        test=test,
        value=text,
        pattern=compile_pattern(text) if test is HeaderTest.REGEX else None,
        invert=header.invert,
        ignore_case=header.ignore_case,
    )
