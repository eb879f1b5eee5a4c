"""Who has a place at a listener, who waits in line for one, and who gives a place up; no socket is touched.

A caller is silent until its first byte, then begun, and settled when its handshake is over. Settled ones are
bounded by `limit` alone, the others by `unsettled_limit`. For callers from the mesh (`fair`):

* They wait in a line of ours, not in the kernel's backlog. The backlog has no names, and whoever floods it
  holds up everybody behind; here each source (an address; a /64 of IPv6, which one host can have) has a line
  of its own, and the lines take turns.
* A source has at most half of the places and of the line, so that others find the other half. Its further
  callers wait, and only those beyond its share of the line are turned away: a fleet may stand behind one
  address.
* A place is given up for one who waits by who has been silent longest; if nobody is silent, by who began
  longest ago and owes us bytes. Each has a grace first, of GRACE where another source waits, of OWN_GRACE
  where only its own does: a burst may be as slow as the one host it comes from. Who waits for us keeps its
  place.
* The silent have no grace where the line or `limit` is full: who has said nothing takes no place from who
  has.
* If nobody gives way, the line waits. When the line is full nothing is accepted, and the backlog holds: to
  accept and close would cut off those who came during a restart, though all of them can be served in a
  moment.
* A full `limit` is another matter, for a place may be free in an hour: a caller is turned away at once, and
  can try another instance. So is our own app at an upstream's listener (not `fair`), which nobody floods.
"""

from __future__ import annotations

import math
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar

import trio

GRACE = 0.5  # seconds for a caller to say what it owes; a round trip across the earth is 0.3
OWN_GRACE = 3.0  # the same, where only callers of its own source wait for the place
SHARES = 2  # a source has at most the places divided by this
LINE = 4096  # callers: what the kernel's backlog holds at most, so that after a restart all of it is taken

Source = str | bytes
UNNAMED = ""  # of a unix socket

_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 socket: RFC 4291 §2.5.5.2
_PREFIX = 8  # bytes of an IPv6 address that name a network


class Overflow(StrEnum):
    """Why a caller is turned away unheard: the setting whose limit is reached."""

    CONNECTIONS = "max_connections"
    HANDSHAKES = "max_handshakes"


class Displaced(StrEnum):
    """Who gave up its place for another."""

    SILENT = "silent"
    STALLED = "stalled"


def source_of(address: object) -> Source:
    """Where a caller comes from, as accept(2) tells it."""
    if not isinstance(address, tuple):
        return UNNAMED
    host: str = address[0]
    if len(address) == 2:  # IPv4
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed if packed.startswith(_MAPPED) else packed[:_PREFIX]


class Admission:
    """How many connections may live at once, how many of them may be unsettled, and how it went.

    `limit` None: as many as there are files; `unsettled_limit` None: no limit either.
    """

    __slots__ = (
        "_begun",
        "_clock",
        "_grace",
        "_held",
        "_own_grace",
        "_silent",
        "admitted",
        "displaced",
        "fair",
        "left",
        "limit",
        "live",
        "most",
        "most_unsettled",
        "on_room",
        "refused",
        "unsettled_limit",
        "waiting",
    )

    def __init__(
        self,
        limit: int | None = None,
        unsettled_limit: int | None = None,
        *,
        fair: bool = False,
        grace: float = GRACE,
        own_grace: float = OWN_GRACE,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.limit = limit
        self.unsettled_limit = unsettled_limit
        self.fair = fair
        self._grace = grace
        self._own_grace = own_grace
        self.live = 0
        self.most = 0
        self.most_unsettled = 0
        self.waiting = 0  # in line
        self.admitted = 0
        self.left = 0  # before their turn
        self.refused: Counter[Overflow] = Counter()
        self.displaced: Counter[Displaced] = Counter()
        self.on_room: Callable[[], None] = lambda: None
        self._clock = clock
        self._silent: dict[Slot, float] = {}  # since when; oldest first
        self._begun: dict[Slot, float] = {}  # the same
        self._held: Counter[Source] = Counter()  # unsettled places by source

    def __repr__(self) -> str:
        return f"<Admission live={self.live} limit={self.limit} overflow={self.overflow}>"

    @property
    def overflow(self) -> int:
        """How many were turned away."""
        return self.refused.total()

    @property
    def unsettled(self) -> int:
        """How many are in, and their handshake is not over."""
        return len(self._silent) + len(self._begun)

    @property
    def full(self) -> Overflow | None:
        """Which limit is reached; None if none is."""
        if self.limit is not None and self.live >= self.limit:
            return Overflow.CONNECTIONS
        if self.unsettled_limit is not None and self.unsettled >= self.unsettled_limit:
            return Overflow.HANDSHAKES
        return None

    def crowded(self, source: Source) -> bool:
        """Whether that source has its share of the places."""
        if not self.fair or self.unsettled_limit is None:
            return False
        return self._held[source] >= share(self.unsettled_limit)

    def obstacle(self, source: Source, *, pressed: bool = False) -> Overflow | None:
        """What keeps one of that source out, though others may have given way; None: it may enter now.

        `pressed`: the line is full.
        """
        if self.crowded(source) and not self._displace(self._own_grace, source, pressed=pressed):
            return Overflow.HANDSHAKES
        reason = self.full
        if reason is not None and self.give_way(pressed=pressed or reason is Overflow.CONNECTIONS):
            reason = self.full
        return reason

    def enter(self, source: Source = UNNAMED, owes: Callable[[], bool] = lambda: True) -> Slot:
        """One more is in, silent. `owes`: whether it has sent nothing that we have not read."""
        place = Slot(self, source, owes)
        self._silent[place] = self._clock()
        self._held[source] += 1
        self.live += 1
        self.admitted += 1
        self.most = max(self.most, self.live)
        self.most_unsettled = max(self.most_unsettled, self.unsettled)
        return place

    def next_to_yield(self) -> float:
        """When the grace of somebody ends next, or has ended, by the clock; infinite if nobody has any."""
        first = [next(iter(places.values()), math.inf) for places in (self._silent, self._begun)]
        return min(first) + self._grace

    def give_way(self, *, pressed: bool = False) -> bool:
        """Free a place that waits for its caller, if anybody's is to be freed; whether there was one."""
        return self.fair and self._displace(self._grace, pressed=pressed)

    def _displace(self, grace: float, source: Source | None = None, *, pressed: bool) -> bool:
        """Free a place (of that source) for another; whether there was one."""
        for kind, place in self._yielding(grace, pressed=pressed):
            if source in (None, place.source) and place.owes():
                self.displaced[kind] += 1
                place.leave()
                place.scope.cancel()
                return True
        return False

    def _yielding(self, grace: float, *, pressed: bool) -> Iterator[tuple[Displaced, Slot]]:
        """Whose grace is over, in the order in which they give way."""
        over = self._clock() - grace
        for place, since in self._silent.items():
            if since > over and not pressed:
                break
            yield Displaced.SILENT, place
        for place, since in self._begun.items():
            if since > over:
                break
            yield Displaced.STALLED, place

    def _begin(self, place: Slot) -> None:
        if place in self._silent:
            del self._silent[place]
            self._begun[place] = self._clock()

    def _rest(self, place: Slot) -> None:
        self._settle(place)
        self._silent[place] = self._clock()
        self._held[place.source] += 1

    def _settle(self, place: Slot) -> None:
        if place not in self._silent and place not in self._begun:
            return
        self._silent.pop(place, None)
        self._begun.pop(place, None)
        self._held[place.source] -= 1
        if not self._held[place.source]:
            del self._held[place.source]
        self.on_room()


class Slot:
    """The place of one admitted connection. `scope` is cancelled when the place is needed for another."""

    __slots__ = ("_admission", "_gone", "owes", "scope", "source")

    def __init__(self, admission: Admission, source: Source, owes: Callable[[], bool]) -> None:
        self._admission = admission
        self._gone = False
        self.source = source
        self.owes = owes
        self.scope = trio.CancelScope()

    def begin(self) -> None:
        """It has said something; to be told once or more."""
        self._admission._begin(self)  # noqa: SLF001 - two halves of one thing

    def settle(self) -> None:
        """Its handshake is over, well or not; to be told once or more."""
        self._admission._settle(self)  # noqa: SLF001 - two halves of one thing

    def rest(self) -> None:
        """It has nothing to wait for us for any more, and is silent anew."""
        if not self._gone:
            self._admission._rest(self)  # noqa: SLF001 - two halves of one thing

    def leave(self) -> None:
        """It has ended; to be told once or more."""
        if self._gone:
            return
        self._gone = True
        self._admission.live -= 1
        self.settle()
        self._admission.on_room()


def share(count: int) -> int:
    """What one source may have of so many."""
    return max(1, count // SHARES)


Caller = TypeVar("Caller")


class Line(Generic[Caller]):
    """Callers who wait for a place: in the order of arrival for each source, the sources by turns."""

    def __init__(self, limit: int = LINE, *, fair: bool = True) -> None:
        self._limit = limit
        self._share = share(limit) if fair else limit
        self._of: dict[Source, deque[Caller]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether nobody more is to be accepted."""
        return self._count >= self._limit

    def join(self, source: Source, caller: Caller) -> bool:
        """Stand at the end; False if the source has its share of the line."""
        callers = self._of.setdefault(source, deque())
        if len(callers) >= self._share:
            return False
        callers.append(caller)
        self._count += 1
        return True

    def sources(self) -> Iterator[Source]:
        """Whose turn it is, and whose then. To be left once somebody was called."""
        return iter(self._of)

    def call(self, source: Source) -> Caller:
        """The first of that source, whose turn is over now."""
        callers = self._of.pop(source)
        caller = callers.popleft()
        self._count -= 1
        if callers:
            self._of[source] = callers
        return caller

    def rest(self) -> Iterator[tuple[Source, Caller]]:
        """Everybody, in order."""
        while self._of:
            source = next(iter(self._of))
            yield source, self.call(source)
