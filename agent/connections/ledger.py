"""The ledger of live and ended connections: every ending is one named reason, counted once.

A connection is in the ledger from its acceptance on, inside the block of `Ledger.open`. However the block is
left, by a named ending, a cancellation or a bug, the connection is removed from the live ones and counted.
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

from agent.base.clock import Clock
from agent.connections.calls import CallTable, Timings
from agent.connections.connection import Connection, ConnectionEvents, Handling
from agent.connections.failing import FailingCalls
from agent.connections.records import (
    Audited,
    CloseReason,
    Direction,
    FailedAttempt,
    Finished,
    RefusedRequest,
)
from agent.connections.tracing import Tracing
from agent.relay.splice import Progress

RECENT = 100  # ended connections kept for `/status`


class Streams(Protocol):
    """The streams of a tunnel (agent.tunnel.tunnel.Tunnel)."""

    opened: int  # so far

    @property
    def streams(self) -> int:
        """How many are open."""


@dataclass(frozen=True, slots=True)
class LiveTunnel:
    """A tunnel: its own connection, its streams, and the generation of our credentials that it began with."""

    connection: Connection
    streams: Streams
    generation: int


class _Probe(StrEnum):
    PROBE = "probe"


class Ledger:
    """The counters and the live connections, which status, metrics, reauthorizer and drain read."""

    def __init__(self, clock: Clock, events: ConnectionEvents) -> None:
        self._clock = clock
        self._events = events
        self.on_opened: Callable[[Connection], None] | None = None  # called after the log's event
        self._numbers = itertools.count(1)
        self._live: dict[int, Connection] = {}
        self._tunnels: dict[int, LiveTunnel] = {}
        self._tunnel_endings: Counter[tuple[Direction, str]] = Counter()
        self._departure: trio.Event | None = None
        self._endings: Counter[tuple[Direction, str]] = Counter()
        self._attempts: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._audits: Counter[str] = Counter()
        self._exposed: Counter[str] = Counter()
        self._bytes = {direction: Progress() for direction in Direction}
        self._recent: deque[Finished] = deque(maxlen=RECENT)
        self.calls = CallTable()
        self.timings = Timings()
        self.tracing: Tracing | None = None  # where the settings ask for spans
        self.failing = FailingCalls()
        self.probes = 0  # TCP health checks, counted neither as callers nor as refusals

    def __repr__(self) -> str:
        return f"<Ledger live={len(self._live)}>"

    @property
    def count(self) -> int:
        """How many connections are live."""
        return len(self._live)

    @contextmanager
    def open(self, direction: Direction, caller: str, upstream: str = "") -> Iterator[Connection]:
        """Hold one connection in the ledger within the block. `Connection.close` cancels the block."""
        scope = trio.CancelScope()
        connection = self.begin(direction, caller, scope.cancel, upstream)
        try:
            with named_ending(connection), scope:
                yield connection
        finally:
            self.finish(connection)

    def begin(
        self, direction: Direction, caller: str, cut: Callable[[], None], upstream: str = ""
    ) -> Connection:
        """Hold a connection that no task serves, as a stream of a tunnel, until `finish`.

        `cut` is called by `Connection.close`, once, and must lead to `finish`.
        """
        connection = Connection(
            number=next(self._numbers),
            direction=direction,
            caller=caller,
            upstream=upstream,
            since=self._clock(),
            began=trio.current_time(),
            on_opened=self._opened,
        )
        connection.cut = cut
        self._live[connection.id] = connection
        return connection

    def forget(self, connection: Connection) -> None:
        """Take a connection out without an ending: it is begun again as another one."""
        del self._live[connection.id]
        self._departed()

    def become_tunnel(self, connection: Connection, streams: Streams, generation: int) -> None:
        """Note that the connection is a tunnel: its streams are counted as connections, and it is not.

        `generation` is that of our credentials in its handshake.
        """
        del self._live[connection.id]
        self._tunnels[connection.id] = LiveTunnel(connection, streams, generation)
        connection.handling = Handling.TUNNEL
        self._departed()
        self._events.tunnel_opened(connection)
        if self.on_opened is not None:
            self.on_opened(connection)

    def tunnels(self, direction: Direction | None = None) -> tuple[Connection, ...]:
        """Return the connections of the live tunnels, oldest first."""
        connections = [tunnel.connection for tunnel in self._tunnels.values()]
        return tuple(c for c in connections if direction in {None, c.direction})

    def live_tunnels(self) -> tuple[LiveTunnel, ...]:
        """Return the live tunnels with their streams, oldest first."""
        return tuple(self._tunnels.values())

    def tunnel_counters(self) -> Mapping[tuple[Direction, str], int]:
        """Return the counts of ended tunnels, by direction and reason."""
        return dict(self._tunnel_endings)

    def _opened(self, connection: Connection) -> None:
        self._events.opened(connection)
        if self.on_opened is not None:
            self.on_opened(connection)

    def probe(self, connection: Connection) -> None:
        """Note that the connection is a health check, which is not recorded as a connection."""
        connection.end(_Probe.PROBE)

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt) -> None:
        """Count a failed candidate."""
        self._attempts[attempt.reason.value] += 1
        self._events.attempt_failed(connection, attempt)

    def request_passed(self, reason: StrEnum) -> None:
        """Count an HTTP request that goes to our app, by the reason of its verdict."""
        self._requests[reason.value] += 1

    def request_refused(self, connection: Connection, refused: RefusedRequest) -> None:
        """Count an HTTP request that was refused."""
        self._requests[refused.reason.value] += 1
        self._events.request_refused(connection, refused)

    def audit(self, connection: Connection, audited: Audited) -> None:
        """Count a call that audit mode has allowed: each rule once for a connection, and every request."""
        if not audited.request:
            if connection.audited == audited.rule:
                return
            connection.audited = audited.rule
        self._audits[audited.reason.value] += 1
        self._events.audited(connection, audited)

    def audits(self) -> Mapping[str, int]:
        """Return the counts of audited denials, by reason."""
        return dict(self._audits)

    def exposed(self, reason: StrEnum) -> None:
        """Count a connection to an exposed path, which is none of the mesh, by how it has ended."""
        self._exposed[reason.value] += 1

    def exposed_refused(self, caller: str, path: str, refused: RefusedRequest) -> None:
        """Tell of a request to an exposed path that the sidecar has answered itself."""
        self._events.exposed_refused(caller, path, refused)

    def exposures(self) -> Mapping[str, int]:
        """Return the counts of connections to exposed paths, by reason."""
        return dict(self._exposed)

    def live(self, direction: Direction | None = None) -> tuple[Connection, ...]:
        """Return the live connections, oldest first."""
        return tuple(c for c in self._live.values() if direction in {None, c.direction})

    def recent(self) -> tuple[Finished, ...]:
        """Return the last ended connections, oldest first."""
        return tuple(self._recent)

    def counters(self) -> Mapping[tuple[Direction, str], int]:
        """Return the counts of ended connections, by direction and reason."""
        return dict(self._endings)

    def failed_attempts(self) -> Mapping[str, int]:
        """Return the counts of failed candidates, by reason."""
        return dict(self._attempts)

    def requests(self) -> Mapping[str, int]:
        """Return the counts of judged HTTP requests, by the reason of the verdict."""
        return dict(self._requests)

    def bytes(self, direction: Direction) -> tuple[int, int]:
        """Return the bytes written to plain and to TLS legs so far, those of live connections included."""
        total = self._bytes[direction]
        live = [connection.progress for connection in self.live(direction)]
        return (
            total.to_plain + sum(progress.to_plain for progress in live),
            total.to_tls + sum(progress.to_tls for progress in live),
        )

    def close_all(self, reason: CloseReason, direction: Direction | None = None) -> int:
        """Close every live connection; return how many."""
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

    def close_tunnels(self, reason: CloseReason) -> None:
        """Close every tunnel, and with it its streams."""
        for tunnel in self.tunnels():
            tunnel.close(reason)

    def finish(self, connection: Connection) -> None:
        """Count the ending of a connection, which is live no more."""
        reason = connection.reason or connection.closing or CloseReason.SHUTDOWN
        if self._tunnels.pop(connection.id, None) is not None:
            self._tunnel_endings[connection.direction, reason.value] += 1
            self._events.tunnel_ended(_finished(connection, reason, self._clock()))
            return
        del self._live[connection.id]
        total = self._bytes[connection.direction]
        total.to_plain += connection.progress.to_plain
        total.to_tls += connection.progress.to_tls
        self._departed()
        if reason is _Probe.PROBE:
            self.probes += 1
            return
        self._endings[connection.direction, reason.value] += 1
        finished = _finished(connection, reason, self._clock())
        self._recent.append(finished)
        self.calls.add(finished)
        self.timings.add(finished)
        self.failing.add(finished)
        if self.tracing is not None:
            self.tracing.connection_ended(finished)
        if connection.opened:
            self._events.closed(finished)
        else:
            self._events.refused(finished)

    def _departed(self) -> None:
        if self._departure is not None:
            self._departure.set()
            self._departure = None


def _finished(connection: Connection, reason: StrEnum, until: datetime) -> Finished:
    return Finished(
        id=connection.id,
        direction=connection.direction,
        reason=reason,
        detail=connection.detail,
        opened=connection.opened,
        caller=connection.caller,
        upstream=connection.upstream,
        dialled=connection.dialled,
        since=connection.since,
        until=until,
        seconds=trio.current_time() - connection.began,
        to_plain=connection.progress.to_plain,
        to_tls=connection.progress.to_tls,
        ours=connection.ours,
        theirs=connection.peer,
        rule=connection.rule,
        admitted_by=connection.rule if connection.admitted_by is None else connection.admitted_by,
        intention=connection.intention,
        cipher=connection.cipher,
        queue_seconds=connection.queue_seconds,
        handshake_seconds=connection.handshake_seconds,
        connect_seconds=connection.connect_seconds,
        first_byte_seconds=connection.first_byte_seconds,
    )


@contextmanager
def named_ending(connection: Connection) -> Iterator[None]:
    """Name the ending of a connection whose block is left by an exception, which goes on."""
    try:
        yield
    except trio.Cancelled:
        raise  # what ends without a name is a shutdown: `Ledger.finish`
    except BaseException:  # an interrupt ends the connection as a bug does
        connection.end(CloseReason.INTERNAL_ERROR)
        raise
