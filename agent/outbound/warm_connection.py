"""A warm connection: dialled and handshaken, its peer identified, waiting for a connection of our app.

No byte of our app has been sent on it yet. The far side may have sent some: a server that speaks first does
so as soon as the far sidecar has called it, and its bytes are kept for the connection that is served. The far
side may also close. With TLS 1.3 a refusal comes after the handshake, so a connection that breaks off soon
and without a byte is taken for a refusal. One that breaks off later, or after a byte, is lost, which says
nothing about rights.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import trio
from OpenSSL import SSL

from agent.base.containment import FaultEvents
from agent.connections.records import FailedAttempt, Party
from agent.relay.close import reset
from agent.relay.pump import RECORD, explain
from agent.relay.splice import Ending
from certs.error_queue import forget_errors
from certs.peer import Peer
from upstreams.reach import DialAddress
from upstreams.route import Candidate
from upstreams.spec import Upstream

PROVEN_SECONDS = 5.0  # a far side that refuses us has done so by then
MOST_EARLY = 16 * 1024  # bytes that a server may send before it is asked anything


class WarmReason(StrEnum):
    """Why a warm connection was closed unused, beside the reasons of `CloseReason`."""

    IDLE = "idle_too_long"  # so old that the far side may be about to close it
    CLOSED = "closed_by_peer"  # in order, most likely by the far app
    REFUSED = "refused_by_peer"  # broken off soon after the handshake, without a byte
    LOST = "lost"  # broken off later, or after a byte
    TALKATIVE = "talkative_peer"
    NEW_CREDENTIALS = "new_credentials"  # made with the credentials before
    EJECTED = "endpoint_ejected"
    GONE = "endpoint_gone"  # no longer the first choice, or at another address
    NOT_WANTED = "not_wanted"  # limits, a changed registration, the agent's end


ORDERLY = frozenset(WarmReason) - {
    WarmReason.REFUSED,
    WarmReason.LOST,
}  # closed in order; no fault of the peer
ORDINARY = frozenset({WarmReason.IDLE, WarmReason.NEW_CREDENTIALS, WarmReason.GONE, WarmReason.NOT_WANTED})


@dataclass(slots=True)
class WarmBook:
    """The counters of one upstream's warm connections."""

    made: int = 0
    used: int = 0
    missed: int = 0  # connections of our app that found none ready
    discarded: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # attempts, by failure reason


@dataclass(slots=True, kw_only=True, eq=False)
class WarmConnection:
    """One warm connection. `since` is by trio's clock; cancelling `scope` ends its watch.

    The holder of the connection closes `sock`.
    """

    sock: socket.socket = field(repr=False)
    tls: SSL.Connection = field(repr=False)
    candidate: Candidate
    dialling: DialAddress
    peer: Peer
    ours: Party
    generation: int
    since: float
    early: bytearray = field(default_factory=bytearray, repr=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, repr=False)

    @property
    def age(self) -> float:
        """Seconds since the handshake."""
        return trio.current_time() - self.since

    def close(self, *, in_order: bool) -> None:
        """Close the connection, `in_order` if the far side may take that for the end of its service."""
        if in_order:
            try:
                self.tls.shutdown()
            except SSL.Error:  # it has left already
                forget_errors()
            self.sock.close()
        else:
            reset(self.sock)

    def listen(self) -> tuple[WarmReason, str] | None:
        """Read what the far side has sent; return why the connection is unusable, None while it is usable.

        Only reading can tell: session tickets mean nothing, an alert and an end do.
        """
        try:
            while len(self.early) <= MOST_EARLY:
                self.early += self.tls.recv(RECORD)
        except (SSL.WantReadError, SSL.WantWriteError):
            return None
        except SSL.ZeroReturnError:
            return WarmReason.CLOSED, f"after {self.age:.1f} s"
        except SSL.Error as error:
            ending, detail = explain(error)
            refused = ending is not Ending.NO_RESOURCES and self.age < PROVEN_SECONDS and not self.early
            reason = WarmReason.REFUSED if refused else WarmReason.LOST
            return reason, f"{ending.value} after {self.age:.1f} s: {detail}"
        return WarmReason.TALKATIVE, f"more than {MOST_EARLY} bytes unasked"


class WarmEvents(FaultEvents, Protocol):
    """The events of warm connections; must not block."""

    def warm_discarded(self, upstream: Upstream, candidate: Candidate, reason: str, detail: str, /) -> None:
        """A warm connection was closed unused."""

    def warm_failed(self, upstream: Upstream, attempt: FailedAttempt, /) -> None:
        """A warm connection could not be made."""
