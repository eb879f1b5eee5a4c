"""One HTTP request as rules look at it: method, readings of the target, header values, folded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Values: TypeAlias = tuple[str | None, ...]  # None: not UTF-8, so that nobody knows what it says

# By these an app may be told to take a request for another one than its request line says.
OVERRIDING = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
    | {"x-script-name"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What rules look at. `paths` are the readings of the path; header names are folded (`fold`)."""

    method: str
    paths: tuple[str, ...]
    headers: Mapping[str, Values]


def fold(name: str) -> str:
    """One spelling for header names: gateways to apps (CGI, WSGI) take `-` and `_` for the same."""
    return name.lower().replace("_", "-")
