"""A live connection, and the protocol of those who hear of connections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import trio

from agent.connections.records import (
    Audited,
    CloseReason,
    Direction,
    FailedAttempt,
    Finished,
    Party,
    RefusedRequest,
)
from agent.http1.request import HttpRequest
from agent.relay.splice import Progress
from certs.peer import Peer


class Handling(StrEnum):
    """What is done with a connection's bytes."""

    RELAYED = "relayed"
    RELAYED_HTTP = "relayed_http"  # HTTP that nobody looks at, for no intention asks for it
    BY_REQUEST = "by_request"


class ConnectionEvents(Protocol):
    """Who is told of connections; must not block."""

    def opened(self, connection: Connection, /) -> None:
        """Application bytes begin to flow."""

    def closed(self, finished: Finished, /) -> None:
        """A connection that had been opened has ended."""

    def refused(self, finished: Finished, /) -> None:
        """A connection has ended before it was opened."""

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        """A candidate did not serve an outbound connection; the next one is tried, if there is one."""

    def request_refused(self, connection: Connection, refused: RefusedRequest, /) -> None:
        """One request of a connection was not passed on; the connection may go on."""

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        """What would have been denied was let through."""


class Connection:
    """A live connection, filled in as it comes to be known."""

    __slots__ = (
        "_on_opened",
        "audited",
        "began",
        "caller",
        "closing",
        "detail",
        "dialled",
        "direction",
        "handling",
        "id",
        "opened",
        "ours",
        "peer",
        "progress",
        "reason",
        "request",
        "rule",
        "scope",
        "since",
        "upstream",
    )

    def __init__(
        self,
        *,
        number: int,
        direction: Direction,
        caller: str,
        upstream: str,
        since: datetime,
        began: float,
        on_opened: Callable[[Connection], None],
    ) -> None:
        self.id = number
        self.direction = direction
        self.caller = caller
        self.upstream = upstream  # the destination, of an outbound connection
        self.since = since
        self.began = began  # the same by trio's clock, which is never set
        self.ours: Party | None = None  # whom we are in it, once the handshake has begun
        self.peer: Peer | None = None  # once its identity is proven
        self.rule = ""  # by which it was let in or kept out
        self.audited = ""  # the rule that would keep it out, were the agent not only auditing
        self.dialled = ""  # the address and why, once connected
        self.opened = False
        self.handling = Handling.RELAYED
        self.request: HttpRequest | None = None  # that our app is serving now, or has been upgraded by
        self.progress = Progress()
        self.scope = trio.CancelScope()
        self.closing: CloseReason | None = None
        self.reason: StrEnum | None = None
        self.detail = ""
        self._on_opened = on_opened

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.direction.value} peer={self.peer and self.peer.id}>"

    def relaying(self) -> None:
        """From now on application bytes flow. A second candidate opens nothing anew."""
        if not self.opened:
            self.opened = True
            self._on_opened(self)

    def end(self, reason: StrEnum, detail: str = "") -> None:
        """Name the ending; the first name stays."""
        if self.reason is None:
            self.reason = reason
            self.detail = detail

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """End it from outside, at once; the first reason stays."""
        if self.closing is None:
            self.closing = reason
            self.detail = detail
            self.scope.cancel()
