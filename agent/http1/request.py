"""One HTTP request as permissions judge it: method, readings of the target, header values by folded name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

Values: TypeAlias = tuple[str | None, ...]  # None: not UTF-8, so that apps may read it differently

# Headers by which an app may take a request for another one than its request line says.
OVERRIDING = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
    | {"x-script-name"}
)


class HttpRequest(NamedTuple):
    """What permissions judge. `paths` are the readings of the path; header names are folded (`fold`)."""

    method: str
    paths: tuple[str, ...]
    headers: Mapping[str, Values]


def fold(name: str) -> str:
    """Return a header name as it is compared: CGI and WSGI take `-` and `_` for the same."""
    return name.lower().replace("_", "-")
