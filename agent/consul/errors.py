"""Why a call to the Consul agent failed, named by what the caller may do next."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum

from agent.consul.http import Response

MAX_TEXT = 300  # characters kept of an error's body
LONGEST_RETRY = 300.0  # seconds of a Retry-After that are obeyed


class ConsulReason(StrEnum):
    """Why a call failed, by what to do next."""

    DENIED = "denied"  # the operator must act; retry slowly
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"  # retry
    MALFORMED = "malformed"  # the request or the answer: another version of the API, or not Consul
    NOT_ASKED = "token_unusable"  # the token file holds no token, so nothing was sent


class ConsulError(Exception):
    """A call without a usable answer."""

    def __init__(
        self,
        reason: ConsulReason,
        path: str,
        text: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        at = path if status is None else f"{path} answered {status}"
        super().__init__(f"{at}: {text}")
        self.reason = reason
        self.path = path
        self.text = text
        self.status = status
        self.retry_after = retry_after  # seconds that Consul asks to be left alone for

    @property
    def unanswered(self) -> bool:
        """Whether there was no answer at all: the agent is down or starting."""
        return self.status is None and self.reason is ConsulReason.UNAVAILABLE


def classify(status: int, text: str) -> ConsulReason:
    """Return the reason of an error: by status, then by the text of a 5xx (docs/consul-api.md#errors)."""
    if status in (401, 403):
        return ConsulReason.DENIED
    if status == 404:
        return ConsulReason.NOT_FOUND
    if status == 429:
        return ConsulReason.RATE_LIMITED
    if status >= 500:
        denied = "Permission denied" in text or "ACL not found" in text
        return ConsulReason.DENIED if denied else ConsulReason.UNAVAILABLE
    return ConsulReason.MALFORMED


def refused(path: str, response: Response) -> ConsulError:
    """Return the error that an answer other than 200 is."""
    text = _text(response.body)
    return ConsulError(
        classify(response.status, text),
        path,
        text,
        status=response.status,
        retry_after=retry_seconds(response.headers),
    )


def retry_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After, a number or a date beside that of the answer (RFC 9110 §10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_RETRY, float(text[:9]))
    try:
        left = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(LONGEST_RETRY, max(0.0, left.total_seconds()))


def _text(body: bytes) -> str:
    return " ".join(body[: 4 * MAX_TEXT].decode("utf-8", "replace").split())[:MAX_TEXT] or "(no text)"
