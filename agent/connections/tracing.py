"""What the data plane tells a tracer, which is no part of it (agent.tracing)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from agent.connections.connection import Connection
from agent.connections.records import Finished
from agent.http1.request_reader import ParsedRequest


class RequestSpan(Protocol):
    """The span of one judged request; must not block."""

    def passed(self, reason: StrEnum, rule: str, /) -> None:
        """Note that the request goes to our app, and by which rule."""

    def refused(self, reason: StrEnum, status: int, /) -> None:
        """Note that the sidecar answers it instead."""

    def answered(self, status: int, /) -> None:
        """Note the status of our app's answer."""

    def broken_off(self, reason: StrEnum, /) -> None:
        """Note that the answer has begun and was not whole, or that the caller has left."""


class Tracing(Protocol):
    """Makes spans; must not block."""

    def connection_ended(self, finished: Finished, /) -> None:
        """Make the span of a connection."""

    def request(
        self, parsed: ParsedRequest, connection: Connection, /
    ) -> AbstractContextManager[RequestSpan]:
        """Hold the span of a request within the block; what the app gets then names it."""

    def counts(self) -> Mapping[str, int]:
        """Return how many spans were exported, could not be exported, and were dropped."""
