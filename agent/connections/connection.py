"""A live connection, and the protocol of the events of connections."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import trio
from OpenSSL import SSL

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
    """How a connection's bytes are handled."""

    RELAYED = "relayed"
    RELAYED_HTTP = "relayed_http"  # HTTP that is relayed unread, since no intention has permissions
    BY_REQUEST = "by_request"
    TUNNEL = "tunnel"  # no connection of an app: each of its streams is one


class ConnectionEvents(Protocol):
    """The events of connections; must not block."""

    def opened(self, connection: Connection, /) -> None:
        """Application bytes begin to flow."""

    def closed(self, finished: Finished, /) -> None:
        """A connection that had been opened has ended."""

    def refused(self, finished: Finished, /) -> None:
        """A connection has ended before it was opened."""

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        """A candidate of an outbound connection has failed; the next one is tried, if there is one."""

    def request_refused(self, connection: Connection, refused: RefusedRequest, /) -> None:
        """A request was not passed on to the app; its connection may continue."""

    def exposed_refused(self, caller: str, path: str, refused: RefusedRequest, /) -> None:
        """A request to an exposed path was not passed on."""

    def tunnel_opened(self, tunnel: Connection, /) -> None:
        """A tunnel takes streams from now on."""

    def tunnel_ended(self, finished: Finished, /) -> None:
        """A tunnel has ended; each of its streams is a connection of its own."""

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        """Audit mode has allowed a call that intentions deny."""


class Connection:
    """A live connection, filled in as it proceeds."""

    __slots__ = (
        "_lap",
        "_on_opened",
        "admitted_by",
        "audited",
        "began",
        "caller",
        "cipher",
        "closing",
        "connect_seconds",
        "cut",
        "detail",
        "dialled",
        "direction",
        "handling",
        "handshake_seconds",
        "id",
        "intention",
        "opened",
        "ours",
        "peer",
        "progress",
        "queue_seconds",
        "reason",
        "request",
        "rule",
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
        self.upstream = upstream  # the destination of an outbound connection
        self.since = since
        self.began = began  # `since` by trio's clock, which is never set
        self.ours: Party | None = None  # our certificate, once the handshake has begun
        self.peer: Peer | None = None  # the peer, once its identity is proven
        self.rule = ""  # the rule of the verdict
        self.intention = ""  # the ID of that rule, where Consul answers one
        self.admitted_by: str | None = None  # the rule of the first verdict, where a later one has cut it
        self.audited = ""  # the rule that denies it, in audit mode
        self.dialled = ""  # the address and why, once connected
        self.opened = False
        self.handling = Handling.RELAYED
        self.request: HttpRequest | None = (
            None  # that the app is serving, or that has upgraded the connection
        )
        self.progress = Progress(trio.current_time)
        self.cut: Callable[[], None] = nothing_to_cut  # ends what serves the connection, at once
        self.closing: CloseReason | None = None
        self.reason: StrEnum | None = None
        self.detail = ""
        self.cipher = ""  # TLS version and cipher, once the handshake is over
        self.queue_seconds = 0.0  # from accept(2) to its turn
        self.handshake_seconds: float | None = None  # the last one, its wait for other tasks included
        self.connect_seconds: float | None = None  # to the app, or to the instance that was dialled last
        self._lap = began
        self._on_opened = on_opened

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.direction.value} peer={self.peer and self.peer.id}>"

    def lap(self) -> float:
        """Return the seconds since this was called last, or since the connection was accepted."""
        now = trio.current_time()
        seconds, self._lap = now - self._lap, now
        return seconds

    def shook_hands(self, tls: SSL.Connection) -> None:
        """Note TLS version, cipher and duration of the handshake that is over now."""
        self.cipher = cipher_of(tls)
        self.handshake_seconds = self.lap()

    @property
    def first_byte_seconds(self) -> float | None:
        """Seconds from accept(2) to the first byte of the answer: of our app, or of the upstream to it."""
        progress = self.progress
        size, since = progress.to_plain, progress.plain_since
        if self.direction is Direction.INBOUND:
            size, since = progress.to_tls, progress.tls_since
        return self.queue_seconds + since - self.began if size else None

    def withdrawn(self, rule: str, intention: str) -> None:
        """Note the rule that cuts the connection; the one that has admitted it is kept."""
        if self.admitted_by is None:
            self.admitted_by = self.rule
        self.rule, self.intention = rule, intention

    def relaying(self) -> None:
        """Note that application bytes flow from now on; a second candidate changes nothing."""
        if not self.opened:
            self.opened = True
            self._on_opened(self)

    def end(self, reason: StrEnum, detail: str = "") -> None:
        """Name the ending; the first name is kept."""
        if self.reason is None:
            self.reason = reason
            self.detail = detail

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Close the connection from another task, at once; the first reason is kept."""
        if self.closing is None:
            self.closing = reason
            self.detail = detail
            self.cut()


def cipher_of(tls: SSL.Connection) -> str:
    """Return TLS version and cipher of a connection whose handshake is over."""
    return f"{tls.get_protocol_version_name()} {tls.get_cipher_name()}"


def nothing_to_cut() -> None:
    """End nothing: the connection is over, or nothing serves it yet."""
