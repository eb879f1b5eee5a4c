"""The exception with which a handler answers by a status and a bare text, as Consul's HTTP API does."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer other than 200. `headers` are sent with it (some errors carry an index).

    See docs/consul-api.md#errors.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


def permission_denied(detail: str = "") -> ApiError:
    """Return a 403 with the text of every ACL refusal of Consul 1.10."""
    return ApiError(403, f"Permission denied: {detail}" if detail else "Permission denied")


def bad_request(text: str) -> ApiError:
    """Return a 400 with the text of the newer endpoints."""
    return ApiError(400, f"Bad request: {text}")


# An error within a server's read carries the query headers of an empty answer.
UNANSWERED = {
    "X-Consul-Index": "1",
    "X-Consul-Knownleader": "false",
    "X-Consul-Lastcontact": "0",
    "X-Consul-Query-Backend": "blocking-query",
}
