"""A warm connection: dialled, handshaken, its peer identified, and waiting for one of our app's.

Nobody has said a word of ours on it yet. The far side may have: a server that speaks first greets as soon as
the far sidecar has called it, and what it said is kept for whoever gets the connection. And the far side may
leave. With TLS 1.3 a refusal comes after the handshake, so one that breaks off soon and without a word has
most likely refused us; one that breaks off later, or after a word, is lost, which says nothing about rights.
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
from certs.error_queue import forget_errors
from certs.peer import Peer
from upstreams.reach import DialAddress
from upstreams.route import Candidate
from upstreams.spec import Upstream

PROVEN_SECONDS = 5.0  # who refuses us has done so by then
MOST_EARLY = 16 * 1024  # bytes that a server may say before it is asked anything


class WarmReason(StrEnum):
    """Why a warm connection was given up unused, beside the reasons of `CloseReason`."""

    IDLE = "idle_too_long"  # of an age at which the far side may be about to hang up
    CLOSED = "closed_by_peer"  # in order: the far app has hung up, most likely
    REFUSED = "refused_by_peer"  # broken off soon after the handshake, before a word
    LOST = "lost"  # broken off later, or after a word
    TALKATIVE = "talkative_peer"
    NEW_CREDENTIALS = "new_credentials"  # it was made with those before
    EJECTED = "endpoint_ejected"
    GONE = "endpoint_gone"  # no longer the first choice, or at another address
    NOT_WANTED = "not_wanted"  # limits, a changed registration, the agent's end


ORDERLY = frozenset(WarmReason) - {WarmReason.REFUSED, WarmReason.LOST}  # and nothing against the peer
ORDINARY = frozenset({WarmReason.IDLE, WarmReason.NEW_CREDENTIALS, WarmReason.GONE, WarmReason.NOT_WANTED})


@dataclass(slots=True)
class WarmBook:
    """What became of one upstream's warm connections."""

    made: int = 0
    used: int = 0
    missed: int = 0  # connections of our app that found none ready
    discarded: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # not made, by the reasons of attempts


@dataclass(slots=True, kw_only=True, eq=False)
class WarmConnection:
    """One of them. `since` is trio's time; `scope` ends whoever watches over it. Its holder closes `sock`."""

    sock: socket.socket = field(repr=False)
    tls: SSL.Connection = field(repr=False)
    approach: Candidate
    dialling: DialAddress
    peer: Peer
    ours: Party
    generation: int
    since: float
    early: bytearray = field(default_factory=bytearray, repr=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, repr=False)

    @property
    def age(self) -> float:
        """Seconds since its handshake was over."""
        return trio.current_time() - self.since

    def part(self, *, in_order: bool) -> None:
        """Close it; in order, if the far side may take it for an end of what it serves."""
        if in_order:
            try:
                self.tls.shutdown()
            except SSL.Error:  # it has left already
                forget_errors()
            self.sock.close()
        else:
            reset(self.sock)

    def listen(self) -> tuple[WarmReason, str] | None:
        """Take what the far side has said since; why it cannot be used any more, None while it can.

        To read is the only way to know: session tickets are no news, an alert and an end are.
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
            refused = self.age < PROVEN_SECONDS and not self.early
            reason = WarmReason.REFUSED if refused else WarmReason.LOST
            return reason, f"{ending.value} after {self.age:.1f} s: {detail}"
        return WarmReason.TALKATIVE, f"more than {MOST_EARLY} bytes unasked"


class WarmEvents(FaultEvents, Protocol):
    """Who is told; must not block."""

    def warm_discarded(self, upstream: Upstream, approach: Candidate, reason: str, detail: str, /) -> None:
        """A warm connection was given up unused."""

    def warm_failed(self, upstream: Upstream, attempt: FailedAttempt, /) -> None:
        """One could not be made."""
