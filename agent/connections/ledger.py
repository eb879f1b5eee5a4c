"""Live and finished connections: every ending is one named reason, counted once.

A connection is in the ledger from the moment it was accepted. `Ledger.open` is its whole life: whatever
leaves that block, an ending that was named, a cancellation, or a bug, takes it out of the live ones and
counts it.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import trio

from agent.connections.records import Audited, FailedAttempt, Party, RefusedRequest
from agent.policy.http_match import HttpRequest
from agent.relay.splice import Progress
from certs.peer import Peer

RECENT = 64  # finished connections remembered for `status` and `explain`


class Direction(StrEnum):
    """Who called: a peer our app, or our app a peer."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CloseReason(StrEnum):
    """Why the sidecar itself ended a connection."""

    INTENTION_WITHDRAWN = "intention_withdrawn"
    INTENTIONS_TOO_OLD = "intentions_too_old"
    NARROWED = "narrowed_by_datacenter"
    DENY_LISTED = "deny_listed"
    ROOT_REMOVED = "root_removed"
    PEER_EXPIRED = "peer_expired"
    BY_REQUEST_NOW = "by_request_now"  # its requests must be looked at from now on
    UPSTREAM_REMOVED = "upstream_removed"
    DRAIN_DEADLINE = "drain_deadline"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"


class Handling(StrEnum):
    """What is done with a connection's bytes."""

    RELAYED = "relayed"
    RELAYED_HTTP = "relayed_http"  # HTTP that nobody looks at, for no intention asks for it
    BY_REQUEST = "by_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A connection that has ended. Bytes are those written to each leg; `opened`: it was relayed."""

    id: int
    direction: Direction
    reason: StrEnum
    detail: str
    opened: bool
    caller: str
    upstream: str
    peer: str
    dialled: str
    since: datetime
    until: datetime
    to_plain: int
    to_tls: int
    ours: Party | None = None
    theirs: Peer | None = None
    rule: str = ""  # the intention, or the default, that let it in or kept it out


class _Probe(StrEnum):
    PROBE = "probe"


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
        "_events",
        "audited",
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
        events: ConnectionEvents,
    ) -> None:
        self.id = number
        self.direction = direction
        self.caller = caller
        self.upstream = upstream  # the destination, of an outbound connection
        self.since = since
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
        self._events = events

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.direction.value} peer={self.peer and self.peer.id}>"

    def relaying(self) -> None:
        """From now on application bytes flow. A second candidate opens nothing anew."""
        if not self.opened:
            self.opened = True
            self._events.opened(self)

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


class Ledger:
    """The numbers and the live connections that status, metrics, verdicts and drain read."""

    def __init__(self, clock: Callable[[], datetime], events: ConnectionEvents) -> None:
        self._clock = clock
        self._events = events
        self._numbers = itertools.count(1)
        self._live: dict[int, Connection] = {}
        self._departure: trio.Event | None = None
        self._endings: Counter[tuple[Direction, str]] = Counter()
        self._attempts: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._audits: Counter[str] = Counter()
        self._bytes = {direction: Progress() for direction in Direction}
        self._recent: deque[Finished] = deque(maxlen=RECENT)
        self.probes = 0  # TCP health checks: neither callers nor refusals

    def __repr__(self) -> str:
        return f"<Ledger live={len(self._live)}>"

    @property
    def count(self) -> int:
        """How many connections live now."""
        return len(self._live)

    @contextmanager
    def open(self, direction: Direction, caller: str, upstream: str = "") -> Iterator[Connection]:
        """One connection's life. `Connection.close` ends the block by cancelling it."""
        connection = Connection(
            number=next(self._numbers),
            direction=direction,
            caller=caller,
            upstream=upstream,
            since=self._clock(),
            events=self._events,
        )
        self._live[connection.id] = connection
        try:
            with connection.scope:
                yield connection
        except trio.Cancelled:
            connection.end(CloseReason.SHUTDOWN)
            raise
        except BaseException:
            connection.end(CloseReason.INTERNAL_ERROR)
            raise
        finally:
            del self._live[connection.id]
            self._finish(connection)

    def probe(self, connection: Connection) -> None:
        """It was a health check: forget it when it ends."""
        connection.end(_Probe.PROBE)

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt) -> None:
        """Count a candidate that did not serve."""
        self._attempts[attempt.reason.value] += 1
        self._events.attempt_failed(connection, attempt)

    def request_passed(self, reason: StrEnum) -> None:
        """Count an HTTP request that goes to our app, by what let it through."""
        self._requests[reason.value] += 1

    def request_refused(self, connection: Connection, refused: RefusedRequest) -> None:
        """Count an HTTP request that does not."""
        self._requests[refused.reason.value] += 1
        self._events.request_refused(connection, refused)

    def audit(self, connection: Connection, audited: Audited) -> None:
        """Count what would have been denied; of one connection each rule once, but every request."""
        if not audited.request:
            if connection.audited == audited.rule:
                return
            connection.audited = audited.rule
        self._audits[audited.reason.value] += 1
        self._events.audited(connection, audited)

    def audits(self) -> Mapping[str, int]:
        """What would have been denied, by reason."""
        return dict(self._audits)

    def live(self, direction: Direction | None = None) -> tuple[Connection, ...]:
        """The live connections, oldest first."""
        return tuple(c for c in self._live.values() if direction in {None, c.direction})

    def recent(self) -> tuple[Finished, ...]:
        """The last ones that ended, oldest first."""
        return tuple(self._recent)

    def counters(self) -> Mapping[tuple[Direction, str], int]:
        """Finished connections by direction and reason."""
        return dict(self._endings)

    def failed_attempts(self) -> Mapping[str, int]:
        """Candidates of outbound connections that did not serve, by reason."""
        return dict(self._attempts)

    def requests(self) -> Mapping[str, int]:
        """HTTP requests that were judged, by what decided."""
        return dict(self._requests)

    def bytes(self, direction: Direction) -> tuple[int, int]:
        """Written to the plain legs and to the TLS legs so far, live connections included."""
        total = self._bytes[direction]
        live = [connection.progress for connection in self.live(direction)]
        return (
            total.to_plain + sum(progress.to_plain for progress in live),
            total.to_tls + sum(progress.to_tls for progress in live),
        )

    def close_all(self, reason: CloseReason, direction: Direction | None = None) -> int:
        """End every live connection; say how many."""
        connections = self.live(direction)
        for connection in connections:
            connection.close(reason)
        return len(connections)

    async def empty(self, direction: Direction | None = None) -> None:
        """Wait until no connection (of that direction) is live."""
        await trio.lowlevel.checkpoint()
        while self.live(direction):
            if self._departure is None:
                self._departure = trio.Event()
            await self._departure.wait()

    def _finish(self, connection: Connection) -> None:
        reason = connection.reason or connection.closing or CloseReason.SHUTDOWN
        total = self._bytes[connection.direction]
        total.to_plain += connection.progress.to_plain
        total.to_tls += connection.progress.to_tls
        if self._departure is not None:
            self._departure.set()
            self._departure = None
        if reason is _Probe.PROBE:
            self.probes += 1
            return
        self._endings[connection.direction, reason.value] += 1
        finished = _finished(connection, reason, self._clock())
        self._recent.append(finished)
        if connection.opened:
            self._events.closed(finished)
        else:
            self._events.refused(finished)


def _finished(connection: Connection, reason: StrEnum, until: datetime) -> Finished:
    return Finished(
        id=connection.id,
        direction=connection.direction,
        reason=reason,
        detail=connection.detail,
        opened=connection.opened,
        caller=connection.caller,
        upstream=connection.upstream,
        peer="" if connection.peer is None else str(connection.peer.id),
        dialled=connection.dialled,
        since=connection.since,
        until=until,
        to_plain=connection.progress.to_plain,
        to_tls=connection.progress.to_tls,
        ours=connection.ours,
        theirs=connection.peer,
        rule=connection.rule,
    )
