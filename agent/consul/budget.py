"""Shares a few connections to the agent among all questions, so that hundreds of watches fit one host.

Consul allows 200 TCP connections of one client address (`limits.http_max_conns_per_client`), which all
processes of a host share, and a question that blocks holds one
(https://developer.hashicorp.com/consul/docs/reference/agent/configuration-file/general#http_max_conns_per_client).
Of `connections` all but one are held by the most important watches, each by one. The last connection is
shared: the other watches ask in turn and without blocking, each within `turn_seconds`. Lists are then
answered from the agent's cache (`?cached`), which one stream keeps up to date for all sidecars of the agent,
so that no server is asked; a first question, one after a failure and one after a failed dial are not.

There is one connection at first, then `least`, and up to `most` while the host has few: `agent.consul.room`
counts and decides. A watch that has to give its connection back ends its question there and asks in turn.

Who asks next on the shared connection: our own service's questions, then lists that are not known yet or that
a failed dial has asked about, then the rest in the order in which they asked last. The rest keep an interval
between two questions. A question of our own service waits for the shared connection a second at most; then it
opens one more, if there is none yet and the host has room.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Any, TypeVar

import trio

from agent.consul.api import Answer, Blocking
from agent.consul.watch import Watch

R = TypeVar("R")

ROUND_SECONDS = 8.0  # in which each of a few dozen lists is asked for once
MARGIN = 1.25  # the seconds stated, of those planned: an answer takes time, and a busy machine is late
SHORTEST, LONGEST = 0.05, 1.0  # seconds between two questions on the shared connection
OWN_SECONDS = 10.0  # the longest interval between two questions of our own service's watches
PATIENCE = 1.0  # seconds that a question of our own service waits for the shared connection
GLANCE = 0.001  # seconds that Consul may hold a question of our own service in turn


class Rank(IntEnum):
    """Which watches hold a connection first."""

    INTENTIONS = 0  # a denial must not wait
    ROOTS = 1
    LEAF = 2
    REGISTRATION = 3
    SOURCE_INTENTIONS = 4
    ENDPOINTS = 5
    QUERY = 6  # cannot block, so it never holds a connection


# Consul goes on with such a question, and counts its connection, when nobody waits for the answer any more
# (docs/consul-api.md#the-connection-budget). So one that may have to be given back is asked for a short wait.
_GOES_ON = frozenset({Rank.INTENTIONS, Rank.REGISTRATION, Rank.SOURCE_INTENTIONS})
SHORT_WAIT = 5.0  # seconds


class Urgency(IntEnum):
    """Which question goes next on the shared connection."""

    OWN = 0
    SOON = 1
    ROUTINE = 2


class _Waiting:
    """One question that waits for the shared connection."""

    __slots__ = ("released", "since", "urgency", "woken")

    def __init__(self, urgency: Urgency) -> None:
        self.urgency = urgency
        self.since = trio.current_time()  # with this urgency, or since there was no room for it
        self.released = False  # it has got a connection of its own meanwhile
        self.woken = trio.Event()


class Budget:
    """The connections of one sidecar to its Consul agent; 0 connections: no limit, all watches block.

    `most`: how many it may have while the host has few.
    """

    def __init__(self, connections: int = 0, most: int = 0) -> None:
        self.connections = self.least = connections
        self.most = max(connections, most) if connections else 0
        self._holders = connections - 1 if connections else math.inf
        self.has_room: Callable[[], Awaitable[bool]] = _always  # for one connection beyond the budget
        self._places: list[Place] = []  # those that may hold a connection, the most important first
        self._queries = 0
        self._queues: dict[Urgency, deque[_Waiting]] = {urgency: deque() for urgency in Urgency}
        self._busy = False  # the shared connection
        self._exceeds = False  # one connection more is open
        self._routine_at = -math.inf
        self.joined = trio.Event()  # set when a watch is added

    @property
    def held(self) -> int:
        """How many watches hold a connection of their own."""
        return int(min(self._holders, len(self._places)))

    @property
    def in_turn(self) -> int:
        """How many watches share one connection."""
        return len(self._places) - self.held + self._queries

    @property
    def turn_seconds(self) -> float:
        """The seconds within which each watch that shares the connection asks; 0 without such a watch."""
        return MARGIN * self.in_turn * self._interval if self.connections else 0.0

    @property
    def wanted(self) -> int:
        """How many connections can be used: one for each watch that can hold one, and the shared one."""
        return max(self.least, min(self.most, len(self._places) + 1))

    def resize(self, connections: int) -> None:
        """Have that many connections from now on; of a budget without a limit nothing changes."""
        if not self.connections or connections == self.connections:
            return
        self.connections, self._holders = connections, connections - 1
        for position, place in enumerate(self._places):
            place.hold(position < self._holders)

    def keeps(self, place: Place) -> bool:
        """Return whether a place that holds a connection does so with the least of connections too."""
        return not self.connections or place in self._places[: self.least - 1]

    @property
    def _interval(self) -> float:
        return min(LONGEST, max(SHORTEST, ROUND_SECONDS / max(1, self.in_turn)))

    def place(self, rank: Rank, watch: Watch[Any, Any]) -> Place:
        """Return the place of a watch, which asks through it from now on; it counts once it has joined."""
        place = Place(self, rank)
        watch.ask = partial(place.ask, watch.ask)
        watch.on_kick = place.hurry
        return place

    def add(self, place: Place) -> None:
        """Count a place."""
        self.joined.set()
        if place.rank is Rank.QUERY:
            self._queries += 1
            return
        at = bisect_right(self._places, int(place.rank), key=_rank)
        self._places.insert(at, place)
        place.hold(at < self._holders)
        self._settle()

    def remove(self, place: Place) -> None:
        """Count a place no more."""
        if place.rank is Rank.QUERY:
            self._queries -= 1
            return
        self._places.remove(place)
        self._settle()

    def _settle(self) -> None:
        """Let the last that may hold a connection hold it, and the next one not."""
        last = self.held - 1
        for position, place in enumerate(self._places[max(0, last) : last + 2], start=max(0, last)):
            place.hold(position < self._holders)

    @asynccontextmanager
    async def turn(self, urgency: Urgency, place: Place | None = None) -> AsyncIterator[None]:
        """Have the shared connection within the block; a question of our own may get another one."""
        if not self.connections:
            yield
            return
        waiting = _Waiting(urgency)
        if place is not None:
            place.waiting = waiting
        try:
            give_back = await self._wait(waiting, place)
        finally:
            if place is not None:
                place.waiting = None
        try:
            yield
        finally:
            give_back()

    async def _wait(self, waiting: _Waiting, place: Place | None) -> Callable[[], None]:
        """Wait for a connection, and return what gives it back."""
        self._queues[waiting.urgency].append(waiting)
        try:
            while not self._may_go(waiting):
                if waiting.released:
                    return _nothing
                urgent = waiting.urgency is Urgency.OWN
                own = place is not None and place.rank < Rank.ENDPOINTS
                limit = waiting.since + (PATIENCE if urgent else OWN_SECONDS if own else math.inf)
                if trio.current_time() >= limit:
                    if not urgent:
                        self.promote(waiting, Urgency.OWN)
                    elif await self._exceed(waiting):
                        return self._end_exceeding
                    continue
                with trio.move_on_at(min(limit, self._due(waiting))):
                    await waiting.woken.wait()
                waiting.woken = trio.Event()
            self._take(waiting)
            return self._end_turn
        finally:
            self._queues[waiting.urgency].remove(waiting)
            self._wake()

    def _take(self, waiting: _Waiting) -> None:
        """Have the shared connection. The next of the routine is due an interval after this one was due.

        So what makes one late, within a fifth of a round, makes the next ones no later. It was not due before
        it waited: after a rest none is asked sooner.
        """
        self._busy = True
        if waiting.urgency is Urgency.ROUTINE:
            latest = trio.current_time() - (MARGIN - 1) * ROUND_SECONDS
            self._routine_at = max(self._routine_at, waiting.since, latest) + self._interval

    def _end_turn(self) -> None:
        self._busy = False
        self._wake()

    async def _exceed(self, waiting: _Waiting) -> bool:
        """Open one connection more if there is none and room for it; say whether. Others go on meanwhile."""
        waiting.since = trio.current_time()
        if self._exceeds:
            return False
        self._exceeds, room = True, False
        queue = self._queues[waiting.urgency]
        queue.remove(waiting)
        self._wake()
        try:
            room = await self.has_room()
        finally:
            self._exceeds = room
            queue.appendleft(waiting)
        return room

    def _end_exceeding(self) -> None:
        self._exceeds = False

    def promote(self, waiting: _Waiting, urgency: Urgency) -> None:
        """Let a question that waits go before those of a lower urgency."""
        if urgency < waiting.urgency:
            self._queues[waiting.urgency].remove(waiting)
            waiting.urgency, waiting.since = urgency, trio.current_time()
            self._queues[urgency].append(waiting)
            self._wake()

    def _first(self) -> _Waiting | None:
        return next((queue[0] for queue in self._queues.values() if queue), None)

    def _may_go(self, waiting: _Waiting) -> bool:
        if self._busy or self._first() is not waiting:
            return False
        return waiting.urgency is not Urgency.ROUTINE or trio.current_time() >= self._routine_at

    def _due(self, waiting: _Waiting) -> float:
        """Return when the question may go by itself: only the first of the routine has a time."""
        return math.inf if self._busy or self._first() is not waiting else self._routine_at

    def _wake(self) -> None:
        first = None if self._busy else self._first()
        if first is not None:
            first.woken.set()


class Place:
    """One watch's share of the connections."""

    def __init__(self, budget: Budget, rank: Rank) -> None:
        self._budget = budget
        self._asked = False
        self.rank = rank
        self.holds = not budget.connections and rank is not Rank.QUERY
        self.waiting: _Waiting | None = None  # for the shared connection
        self._hurried = False
        self._question = trio.CancelScope()  # that has a connection of our own

    @property
    def in_turn(self) -> bool:
        """Whether a change is seen only when it is our turn to ask."""
        return not self.holds

    async def ask(self, ask: Callable[[Blocking], Awaitable[Answer[R]]], at: Blocking) -> Answer[R]:
        """Ask with a connection of our own, or in turn and without blocking. Raises ConsulError."""
        if self.holds or not self._budget.connections:
            wait = SHORT_WAIT if self.rank in _GOES_ON and not self._budget.keeps(self) else at.wait
            with trio.CancelScope() as self._question:
                return await ask(replace(at, has_turn=True, wait=min(at.wait, wait)))
        async with self._budget.turn(self._urgency(at), self):
            cached = bool(at.params) and not self._hurried
            self._asked, self._hurried = True, False
            if self.rank < Rank.ENDPOINTS:
                return await ask(replace(at, has_turn=True, wait=min(at.wait, GLANCE)))
            answer = await ask(Blocking(has_turn=True, cached=cached))
            # Indexes of cache and servers cannot be compared; a position from before is kept for later.
            return replace(answer, index=at.index or None)

    def hold(self, holds: bool) -> None:
        """Have a connection of our own from the next question on, or give it back at once."""
        if self.holds and not holds:
            self._question.cancel()
        self.holds = holds
        if holds and self.waiting is not None:
            self.waiting.released = True
            self.waiting.woken.set()

    def hurry(self) -> None:
        """Ask as soon as possible."""
        self._hurried = True
        if self.waiting is not None:
            self._budget.promote(self.waiting, self._urgency(Blocking()))

    def join(self) -> None:
        """Take a share of the connections."""
        self._budget.add(self)

    def leave(self) -> None:
        """Give the share up."""
        self._budget.remove(self)

    def _urgency(self, at: Blocking) -> Urgency:
        repeated = at.params or self.rank is Rank.QUERY
        if repeated and self._asked and not self._hurried:
            return Urgency.ROUTINE
        return Urgency.SOON if self.rank >= Rank.ENDPOINTS else Urgency.OWN


def _rank(place: Place) -> int:
    return int(place.rank)


async def _always() -> bool:
    """Default `has_room`: the host is not counted."""
    return True


def _nothing() -> None:
    """Give nothing back: the question has got a connection of its own."""
