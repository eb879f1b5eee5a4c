"""What a crafted request is, and what the rules forbid.

Forbidden are the path /admin and all below it, the role `root`, the method DELETE, and an identity that says
`evil`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.hostile.backends import Seen
from tests.scenarios.http_front import Rule, deny, request

RULES: list[Rule] = [
    deny(PathPrefix="/admin/"),
    deny(Methods=["DELETE"]),
    deny(Header=[{"Name": "X-Role", "Exact": "root"}]),
]
HIDDEN = request("GET /admin/hidden")


class Attempt(NamedTuple):
    """What the caller writes; `kind` sums up."""

    kind: str
    raw: bytes

    def numbered(self, number: int) -> bytes:
        """The same, told from others in the app's notes."""
        return self.raw.replace(b"Host: db\r\n", b"Host: db\r\nX-Attempt: %d\r\n" % number, 1)


def forbidden(seen: Seen) -> bool:
    """Whether the app was told of what the rules forbid."""
    path = "/" + seen.path.lower().strip("/") + "/"
    roles = {role.strip() for value in seen.role for role in value.split(",")}
    evil = any("evil" in value for value in seen.identity)
    return path.startswith("/admin/") or "root" in roles or evil or seen.method.upper() == "DELETE"


def chunked(body: bytes) -> bytes:
    """A request with these bytes for chunks."""
    return request("POST /x", "Transfer-Encoding: chunked", body=body)


def kinds(made: Iterable[Attempt]) -> list[str]:
    """The kinds there are, in order."""
    return list(dict.fromkeys(attempt.kind for attempt in made))
