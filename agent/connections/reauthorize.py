"""Keeps verdicts live: judges open connections again when intentions, roots or the time have changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

import trio

from agent.base.clock import Clock
from agent.base.containment import FaultEvents, Where
from agent.base.latest import Latest
from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.connections.verdicts import rejudge
from agent.policy.deny_list import NOBODY, DenyList
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import SourceIntentions
from certs.contexts import Contexts

_LOOK = timedelta(seconds=60)  # the wall clock may be set while we sleep on another one
_AFTER = timedelta(milliseconds=10)  # a peer is valid up to and including its last moment


class Reauthorizer:
    """Judges at once whenever something it judges by changes, and when the earliest peer expires."""

    def __init__(
        self,
        ledger: Ledger,
        intentions: Latest[Intentions],
        contexts: Latest[Contexts],
        clock: Clock,
        told: Callable[[int], None],
        *,
        faults: FaultEvents,
        grace: float = 0.0,
        deny_list: Latest[DenyList] | None = None,
        outgoing: Latest[SourceIntentions] | None = None,
    ) -> None:
        self._ledger = ledger
        self._intentions = intentions
        self._contexts = contexts
        self._clock = clock
        self._told = told
        self._faults = faults
        self._grace = grace  # seconds a connection may outlive its peer's certificate
        self._deny_list = deny_list or Latest(NOBODY)
        self._outgoing = outgoing or Latest()
        self._wake = trio.Event()
        self._next_expiry: datetime | None = None

    async def run(self) -> None:
        """Judge for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake_on, self._intentions)
            nursery.start_soon(self._wake_on, self._contexts)
            nursery.start_soon(self._wake_on, self._deny_list)
            nursery.start_soon(self._wake_on, self._outgoing)
            while True:
                self._wake = trio.Event()
                now = self._clock()
                result = rejudge(
                    self._ledger,
                    self._intentions.value,
                    self._contexts.value,
                    now,
                    self._grace,
                    deny_list=self._deny_list.value or NOBODY,
                    outgoing=self._outgoing.value,
                )
                for failure in result.failures:
                    self._faults.internal_error(Where.CONNECTION, "a verdict", failure)
                self._next_expiry = result.next_expiry
                if result.closed:
                    self._told(result.closed)
                rest = _LOOK if result.next_expiry is None else min(_LOOK, result.next_expiry - now + _AFTER)
                with trio.move_on_after(max(0.0, rest.total_seconds())):
                    await self._wake.wait()

    def opened(self, connection: Connection) -> None:
        """A connection has a peer: it may be the one that expires first."""
        if connection.peer is None or self._grace == math.inf:
            return
        expiry = connection.peer.not_after + timedelta(seconds=self._grace)
        if self._next_expiry is None or expiry < self._next_expiry:
            self._wake.set()

    async def _wake_on(
        self, cell: Latest[Intentions] | Latest[Contexts] | Latest[DenyList] | Latest[SourceIntentions]
    ) -> None:
        version = cell.version
        while True:
            _, version = await cell.newer(version)
            self._wake.set()
