"""The HTTP calls of the story, as `curl` makes them: one connection each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpcore2
import trio


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and body of one exchange."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, without the trailing newline."""
        return self.body.decode(errors="replace").rstrip("\n")

    def json(self) -> Any:  # noqa: ANN401 - the shape is the endpoint's
        """The body as JSON. Raises ValueError if it is not."""
        return json.loads(self.body)


class Unanswered(Exception):
    """There was no HTTP answer: refused, reset, closed without a byte, or too slow."""


async def call(method: str, url: str, body: object = None, *, seconds: float = 5.0) -> Answer:
    """Make one request over a connection of its own.

    Raises:
        Unanswered: nothing came back within `seconds`, or the connection broke first.
    """
    content = b"" if body is None else json.dumps(body).encode()
    try:
        with trio.fail_after(seconds):
            async with httpcore2.AsyncConnectionPool() as pool:
                response = await pool.request(method, url, headers={"Connection": "close"}, content=content)
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.TimeoutException,
        trio.TooSlowError,
    ) as error:
        raise Unanswered(f"{method} {url}: {type(error).__name__} {error}".rstrip()) from error
    return Answer(status=response.status, body=response.content)


async def get(url: str, *, seconds: float = 5.0) -> Answer:
    """GET over a connection of its own; see `call`."""
    return await call("GET", url, seconds=seconds)


async def put(url: str, body: object = None) -> Answer:
    """PUT a JSON body; see `call`."""
    return await call("PUT", url, body)
